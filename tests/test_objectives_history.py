"""Objectives on a real history: what is left out of it, and which alarms it opens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import redis

from tests.support.past import Ended, write
from worker.history.collector import HOUR_MS, MINUTE_MS
from worker.history.document import ALL, Facts, together
from worker.history.read import numbered
from worker.objectives.indicators import Counts, counts_of
from worker.objectives.policy import Abuse, Maintenance, MaintenanceWindow, SloPolicy, Targets
from worker.objectives.watch import Watch
from worker.objectives.windows import measured

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = TODAY - timedelta(days=1)  # its minutes are kept, and it is over
TARGETS = Targets(success_percent=99.5, p95_answer_seconds=2.5, average_cost_usd=0.015)


def ms(hour: int, minute: int = 0, second: int = 0) -> int:
    return int((DAY + timedelta(hours=hour, minutes=minute, seconds=second)).timestamp() * 1000)


def counted(client: redis.Redis, policy: SloPolicy, length_ms: int, dimension: str = ALL, name: str = "") -> Counts:
    """What is measured of the whole day, read by minutes or hours."""
    found = numbered(client, range(ms(0) // length_ms, ms(24) // length_ms), length_ms)
    whole = together(each.document for each in measured(client, policy, found))
    return counts_of(whole.facts[dimension].get(name) or Facts())


def test_maintenance_is_left_out_by_minutes_and_by_hours(url: str, client: redis.Redis) -> None:
    begin, end = DAY + timedelta(hours=9, minutes=50), DAY + timedelta(hours=10, minutes=10)
    window = MaintenanceWindow(begin=begin, end=end, why="a new version")
    policy = SloPolicy(maintenance=Maintenance(windows=(window,)))
    failing = range(9 * 60 + 50, 10 * 60 + 10)
    jobs = [Ended(ms(0, m), died="exhausted" if m in failing else "", answer_ms=m) for m in range(9 * 60, 11 * 60)]
    write(client, url, [*jobs, Ended(ms(11), died="expired")], policy.maintained)
    for length in (MINUTE_MS, HOUR_MS):
        of = counted(client, policy, length)
        assert (of.requests, of.failures, of.micros, of.answer.times) == (101, 1, 100 * 5_000, 100)
        assert counted(client, SloPolicy(), length).failures == 21
        assert counted(client, policy, length, "tenant", "acme").requests == 101
    keys = client.keys("failover:history:maintenance:*")
    assert len(keys) == 2 and all(0 < client.ttl(key) <= 400 * 86400 for key in keys)


def test_abuse_of_one_tenant_is_left_out_of_all_and_of_the_tenant(url: str, client: redis.Redis) -> None:
    jobs = [Ended(ms(h, m), tenant=t) for h in range(8, 12) for m in range(60) for t in ("acme", "globex")]
    write(client, url, jobs)
    abuse = Abuse(tenant="globex", begin=DAY + timedelta(hours=9), end=DAY + timedelta(hours=11), why="a loop")
    policy = SloPolicy(abuse=(abuse,))
    for length in (MINUTE_MS, HOUR_MS):
        assert counted(client, policy, length).requests == 360
        assert counted(client, policy, length).micros == 360 * 5_000
        assert counted(client, policy, length, "tenant", "globex").requests == 120
        assert counted(client, policy, length, "tenant", "acme").requests == 240
        assert counted(client, policy, length, "feature", "faq").requests == 480  # counted apart from tenants


def steady(begin: int, end: int) -> list[Ended]:
    """40 good jobs in each minute of the day from `begin` up to `end`."""
    return [Ended(ms(0, m, second)) for m in range(begin, end) for second in range(0, 60, 3) for _ in range(2)]


def test_an_outage_opens_alarms_in_time_with_its_cause_and_they_close(url: str, client: redis.Redis) -> None:
    outage = [
        Ended(
            ms(0, 600 + m, second), died="exhausted", failed=(("a/a-1", "overloaded"), ("b/b-1", "timeout")), route="-"
        )
        for m in range(20)
        for second in range(0, 60, 3)
    ]
    write(client, url, [*steady(570, 600), *outage, *steady(620, 650)])
    watch = Watch(client, lambda: SloPolicy(targets=Targets(success_percent=99.5)))
    assert watch.look(ms(0, 600)) == ()
    states = {m: watch.look(ms(0, m, 12)) for m in range(601, 660)}
    burns, success = (
        {m: [f for f in found if f.alarm == a] for m, found in states.items()} for a in ("burn", "success")
    )
    assert min(m for m, found in burns.items() if found) <= 602
    seen = [m for m, found in success.items() if found]
    assert seen[0] <= 605 and seen[-1] <= 630
    (everything, feature, tenant) = success[606]
    assert (everything.scope, feature.scope, tenant.scope) == ("", "feature faq", "tenant acme")
    assert everything.what == ("success is under 99.5% for 5 minutes",)
    assert everything.size == "100 of 100 requests failed"
    assert everything.lines == (
        "Failed requests: exhausted 100.",
        "Top cause: a/a-1: overloaded (100 of its 100 calls).",
    )
    assert states[659] == ()


def test_slow_answers_name_the_queue_or_the_slow_route(url: str, client: redis.Redis) -> None:
    def slow(begin: int, **more: float) -> list[Ended]:
        return [Ended(ms(0, m, s), answer_ms=9_000, **more) for m in range(begin, begin + 16) for s in range(0, 60, 6)]  # type: ignore[arg-type]

    write(client, url, [*steady(300, 330), *slow(330), *steady(346, 400), *slow(400, run_ms=900), *steady(416, 450)])
    watch = Watch(client, lambda: SloPolicy(targets=TARGETS))
    (by_route, *_) = watch.look(ms(0, 345, 12))
    assert by_route.what == ("more than 1 in 20 answers come later than 2.5 s, for 15 minutes",)
    assert by_route.size == "150 of 150 answers were slower"
    assert by_route.lines == ("Top cause: a/a-1: 1 in 20 of its calls takes more than 9.1 s; it had 150 of 150 calls.",)
    assert watch.look(ms(0, 380)) == ()
    (by_queue, *_) = watch.look(ms(0, 415, 12))
    assert by_queue.lines == ("Top cause: jobs wait in the queue; 19 in 20 of their calls take at most 902 ms.",)


def test_a_cost_spike_names_route_feature_and_tenant(url: str, client: redis.Redis) -> None:
    dear = [
        Ended(ms(0, m, s), micros=60_000, route="b/large", feature="essays")
        for m in range(330, 346)
        for s in range(0, 60, 6)
    ]
    write(client, url, [*steady(300, 330), *dear])
    (found, *_) = Watch(client, lambda: SloPolicy(targets=TARGETS)).look(ms(0, 346, 12))
    assert found.what == ("a request costs more than $0.015 on average for 15 minutes",)
    assert found.lines == (
        "Top cause: b/large: 100% of the cost, $0.060000 a call.",
        "Feature essays: 100% of the cost, $0.060000 a call.",
        "Tenant acme: 100% of the cost, $0.060000 a call.",
    )


def test_the_targets_of_a_tenant_and_a_new_policy_hold_at_the_next_look(url: str, client: redis.Redis) -> None:
    write(client, url, steady(300, 330))
    policies = [SloPolicy()]
    watch = Watch(client, lambda: policies[-1])
    assert watch.look(ms(0, 330, 12)) == ()
    policies.append(SloPolicy(tenants={"acme": Targets(p95_answer_seconds=0.5)}))
    (found,) = watch.look(ms(0, 330, 42))
    assert (found.scope, found.alarm) == ("tenant acme", "latency")


def test_a_second_notifier_finds_the_same_at_the_same_time(url: str, client: redis.Redis) -> None:
    bad = [Ended(ms(0, 600 + m, s), died="exhausted") for m in range(12) for s in range(0, 60, 3)]
    write(client, url, [*steady(570, 600), *bad, *steady(612, 640)])
    policy = SloPolicy(targets=TARGETS)
    watch = Watch(client, lambda: policy)
    for minute in range(602, 640, 6):
        at = ms(0, minute, 12)
        assert watch.look(at) == Watch(client, lambda: policy).look(at)


def test_a_look_reads_only_what_is_new(url: str, client: redis.Redis) -> None:
    write(client, url, steady(300, 310))
    watch = Watch(client, lambda: SloPolicy(targets=TARGETS))
    watch.look(ms(0, 310))
    before = int(client.info("stats")["keyspace_misses"]) + int(client.info("stats")["keyspace_hits"])
    watch.look(ms(0, 310, 30))
    after = int(client.info("stats")["keyspace_misses"]) + int(client.info("stats")["keyspace_hits"])
    assert after - before <= 12


def test_a_minute_that_was_read_early_is_read_again_also_after_a_pause(url: str, client: redis.Redis) -> None:
    def failing(first: int) -> list[Ended]:
        return [Ended(ms(0, m, first + s), died="crashed") for m in range(300, 306) for s in range(10)]

    watch = Watch(client, lambda: SloPolicy(targets=Targets(success_percent=99.5)))
    write(client, url, failing(0)[:10])
    watch.look(ms(0, 301))  # and then another worker sends the notifications
    write(client, url, [*failing(20)[:10], *failing(0)[10:]])
    found = watch.look(ms(0, 306, 12))
    assert found == Watch(client, lambda: SloPolicy(targets=Targets(success_percent=99.5))).look(ms(0, 306, 12))
    assert {each.size for each in found if each.alarm == "burn"} == {"70 of 70 requests failed"}


def test_more_than_half_of_the_months_error_budget_by_day_15_burns_slowly(url: str, client: redis.Redis) -> None:
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    days = 10  # of this month, in which 40 of 4,000 requests failed; the month may have some 12,000
    jobs = [
        Ended(
            int((month + timedelta(days=d, hours=n // 20, seconds=n % 20)).timestamp() * 1000),
            died="expired" if n < 4 else "",
        )
        for d in range(days)
        for n in range(400)
    ]
    write(client, url, jobs)
    watch = Watch(client, lambda: SloPolicy(targets=Targets(success_percent=99.5)))
    found = watch.look(int((month + timedelta(days=days)).timestamp() * 1000))
    (everything, *_) = [each for each in found if each.alarm == "budget"]
    assert everything.what == ("more than 50% of the month's error budget is spent before the end of day 15",)
    assert everything.size.startswith("40 of about 60 failures")
