"""Missed targets as incidents: one message for each, which changes with the alarm and ends with it."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import redis

from ops.simulators.slack_api import Slack
from producer import keyspace
from tests.support.incidents import incidents, on_call
from tests.support.past import Ended, write
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.control.pause import Scope, paused, resume
from worker.money.budget_state import month_of, standing
from worker.notify.conditions import ConditionReader
from worker.notify.incidents import Incidents
from worker.notify.kinds import Kind
from worker.notify.objectives.follow import FROZEN_SECONDS, follow_up
from worker.notify.oncall import OnCall
from worker.notify.reconcile import Reconciler
from worker.objectives.alarms import Alarm
from worker.objectives.policy import Follow, SloPolicy, Targets
from worker.objectives.watch import Finding, Watch

MINUTE_MS = 60_000
BEGIN = (int(time.time()) // 3600 - 12) * 3_600_000  # in milliseconds; its minutes are kept, and all of it is over
POLICY = SloPolicy(targets=Targets(success_percent=99.5))


def minutes(
    begin: int, end: int, died: str = "", tenant: str = "acme", failed: tuple[str, str] | None = None
) -> list[Ended]:
    """20 jobs in each minute from `begin` up to `end`."""
    calls = (failed,) if failed else ()
    return [
        Ended(BEGIN + m * MINUTE_MS + s * 1000, died=died, tenant=tenant, failed=calls)
        for m in range(begin, end)
        for s in range(0, 60, 3)
    ]


class Story:
    """A notifier that looks when it is told to."""

    def __init__(self, client: redis.Redis, policy: SloPolicy = POLICY) -> None:
        self._client, self._watch = client, Watch(client, lambda: policy)
        self._reader = ConditionReader(client, OnCall(hold_seconds=0), ())
        self._reader.follow = policy.follow
        self._reconciler = Reconciler(client, OnCall(hold_seconds=0))
        self._incidents = Incidents(client)

    def look(self, minute: int) -> dict[str, str]:
        """The titles of the open incidents of objectives, by kind and subject, after a look at this minute's end."""
        self._reader.findings = self._watch.findings(BEGIN + minute * MINUTE_MS + 72_000)
        follow_up(self._client, self._reader.follow, self._reader.findings)
        self._reconciler.reconcile(self._reader.read())
        found = [each for each in self._incidents.unsettled() if each.resolved_ms is None]
        return {f"{each.kind} {each.subject}".strip(): each.title for each in found}


def test_an_outage_is_one_incident_that_changes_and_ends(url: str, client: redis.Redis) -> None:
    bad = minutes(100, 170, died="exhausted", failed=("a/a-1", "overloaded"))
    write(client, url, [*minutes(30, 100), *bad, *minutes(170, 240)])
    story = Story(client)
    seen = {minute: story.look(minute) for minute in (99, 104, 140, 165, 176, 230)}
    assert seen[99] == {} == seen[230]
    assert seen[104]["slo_success"] == "Success is under 99.5% for 5 minutes: 100 of 100 requests failed"
    assert seen[165]["slo_success"] == "Success is under 99.5% for 60 minutes: 1,200 of 1,200 requests failed"
    assert set(seen[140]) == {"slo_success", "slo_burn"}  # those of the tenant and the feature are in it
    (success,) = incidents(client, Kind.SLO_SUCCESS)
    story_lines = [entry.text for entry in Incidents(client).story(success.id)]
    assert story_lines[0] == "success is under 99.5% for 5 minutes"
    assert "success is under 99.5% for 60 minutes" in story_lines
    assert "no longer: success is under 99.5% for 5 minutes" in story_lines and story_lines[-1] == "over"
    assert success.resolved_ms is not None


def test_one_tenant_that_fails_has_an_incident_of_its_own(url: str, client: redis.Redis) -> None:
    policy = SloPolicy(targets=Targets(success_percent=90))
    crowd = [job for _ in range(20) for job in minutes(90, 120)]
    write(client, url, sorted([*crowd, *minutes(100, 120, "crashed", "glo bex")], key=lambda job: job.at_ms))
    found = Story(client, policy).look(110)
    assert found["slo_success tenant glo bex"].startswith("tenant glo bex: success is under 90% for 5 minutes")
    assert "slo_success" not in found
    (incident,) = incidents(client, Kind.SLO_SUCCESS)
    assert "failover slo show --tenant 'glo bex'" in incident.commands


def test_a_night_of_two_requests_pages_nobody(url: str, client: redis.Redis) -> None:
    write(client, url, [Ended(BEGIN + 200 * MINUTE_MS), Ended(BEGIN + 210 * MINUTE_MS, died="exhausted")])
    story = Story(client)
    assert all(story.look(minute) == {} for minute in range(200, 280, 5))
    assert Incidents(client).since(0) == []


def test_much_of_a_months_budget_before_day_20_asks_for_a_review(client: redis.Redis) -> None:
    now = datetime.now(UTC)
    begin = now.replace(day=1, hour=12)
    status = {"step": 80, "full": False, "basis": 40_000_000, "hard": 40_000_000, "tokens": -1, "spent": 33_000_000}
    for scope in ("tenant:acme", "user:acme/u", "total"):
        client.hset(keyspace.ALERT_THRESHOLDS + month_of(now), scope, json.dumps(status))
    watch = Watch(client, lambda: POLICY)
    early = watch.look(int(begin.replace(day=20).timestamp() * 1000))
    assert {(each.scope, each.what) for each in early} == {
        ("tenant acme", ("80% of the month's budget is used before the end of day 20",)),
        ("", ("80% of the month's budget is used before the end of day 20",)),
    }
    assert watch.look(int(begin.replace(day=21).timestamp() * 1000)) == ()


def test_broken_documents_of_the_history_stop_no_other_message(url: str, client: redis.Redis) -> None:
    write(client, url, minutes(100, 102))
    key = keyspace.minute(BEGIN // MINUTE_MS + 100)
    client.delete(key)
    client.hset(key, "a", "b")
    hour = keyspace.hour((BEGIN // MINUTE_MS + 100) // 60)
    client.set(hour, b"no document")
    assert Watch(client, lambda: POLICY).findings(BEGIN + 103 * MINUTE_MS) == ()


def test_a_worker_tells_it_in_slack_with_the_cause(workshop: Workshop, client: redis.Redis, slack: Slack) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    (Path(workshop.environment["POLICIES_DIR"]) / "slo.yaml").write_text("targets: {success_percent: 99.5}\n")
    minute = int(time.time()) // 60
    jobs = [
        Ended(m * MINUTE_MS + s * 1000, died="exhausted", failed=(("a/a-1", "timeout"),))
        for m in range(minute - 10, minute)
        for s in range(0, 60, 2)
    ]
    write(client, workshop.url, jobs)
    workshop.worker(**slack.environment)
    found = until(lambda: [m for m in slack.in_channel() if "Success is under" in m.texts[0]], "it is told")[0]
    text = found.whole()
    assert "Success is under 99.5% for 5 minutes" in text and "Top cause: a/a-1: timeout" in text
    assert "Fewer requests get their answer in time than clients were promised." in text
    assert "failover slo show" in text and "runbook.md: slo_success" in text


def burning() -> list[Ended]:
    """a/a-1 fails, and b/b-1 answers half of the jobs."""
    failed = minutes(100, 110, died="exhausted", failed=("a/a-1", "overloaded"))
    answered = [Ended(job.at_ms + 1, route="b/b-1", failed=(("a/a-1", "overloaded"),)) for job in failed]
    return [*minutes(30, 100), *sorted([*failed, *answered], key=lambda job: job.at_ms)]


def test_what_follows_a_burn_is_proposed_as_commands(url: str, client: redis.Redis) -> None:
    write(client, url, burning())
    Story(client).look(106)
    (burn,) = incidents(client, Kind.SLO_BURN)
    assert "failover routes disable a/a-1 --for 1h" in burn.commands
    assert not any(line.startswith("Done") for line in burn.lines)
    assert not client.exists(keyspace.FREEZE) and paused(client, []) == []


def test_what_follows_a_burn_is_done_once_and_a_person_may_end_it(
    workshop: Workshop, url: str, client: redis.Redis
) -> None:
    write(client, url, burning())
    story = Story(client, POLICY.model_copy(update={"follow": Follow(fast_burn="done", slow_burn="done")}))
    story.look(106)
    (burn,) = incidents(client, Kind.SLO_BURN)
    assert "Done: launches are frozen while this lasts: `failover routes diff` refuses." in burn.lines
    assert "Done: a/a-1 is disabled for an hour; other routes answer. `failover routes enable` ends it." in burn.lines
    (flag,) = paused(client, [])
    assert (flag.route, flag.who) == ("a/a-1", "objectives") and flag.until is not None
    assert 0 < client.ttl(keyspace.FREEZE) <= FROZEN_SECONDS

    maps = []
    for number in range(2):
        workshop.routes(hot=[{"upstream": f"u{number}"}])
        maps.append(str(shutil.copy(workshop.folder / "routes.json", workshop.folder / f"{number}.json")))
    refused = workshop.run("failover", "routes", "diff", *maps)
    assert refused.returncode == 2 and "launches are frozen: failures are more than 14.4 times" in refused.stderr
    assert workshop.run("failover", "routes", "diff", maps[0], maps[0]).returncode == 0
    despite = workshop.run("failover", "routes", "diff", "--despite-freeze", *maps)
    assert despite.returncode == 1 and "u1" in despite.stdout

    assert "launches are frozen: failures are more than 14.4 times" in workshop.run("failover", "slo", "show").stdout
    resume(client, Scope(route="a/a-1"), who="ana")
    story.look(108)
    assert paused(client, []) == []
    client.delete(keyspace.FREEZE)  # as after its time
    assert workshop.run("failover", "routes", "diff", *maps).returncode == 1


def test_the_only_route_that_answers_is_never_disabled(url: str, client: redis.Redis) -> None:
    alone = minutes(100, 110, died="exhausted", failed=("a/a-1", "overloaded"))
    write(client, url, [*minutes(30, 100), *alone])
    Story(client, POLICY.model_copy(update={"follow": Follow(fast_burn="done")})).look(109)
    assert incidents(client, Kind.SLO_BURN) and paused(client, []) == []


def test_a_slow_burn_turns_cost_saving_on_once_a_day(client: redis.Redis) -> None:
    found = Finding(Alarm.BUDGET, "all", "", ("more than 50%",), "40 of about 60 failures", ())
    of_one = replace(found, dimension="tenant", name="acme")
    follow_up(client, Follow(slow_burn="done"), [of_one])
    follow_up(client, Follow(slow_burn="proposed"), [found])
    assert not client.exists(keyspace.REDUCE)
    follow_up(client, Follow(slow_burn="done"), [found])
    assert standing(client).reduced == "cost is reduced by objectives: more than 50% (40 of about 60 failures)"
    client.delete(keyspace.REDUCE)  # a person ended it
    follow_up(client, Follow(slow_burn="done"), [found])
    assert not client.exists(keyspace.REDUCE)
