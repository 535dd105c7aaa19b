"""`make bench-objectives`: five weeks with a known truth: every indicator equals it, every alarm comes in time, and none else.

    python -m bench.longrun.objectives

From 4 March to 8 April 2026, as it happened: an hour's half with OpenAI's elevated errors, 90 minutes and 87 minutes of Claude's
outages. In between a dear route for three hours, a slow week, a maintenance window in which all failed, and nights with two
requests of which one fails. The outcomes and the ledger's rows are in the streams that workers write, and the history's own
collector counts them. Then the notifier's watch looks twelve seconds after each minute around the begin and the end of trouble,
and every twenty minutes otherwise: with so few jobs an alarm lasts for longer.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis

from ops.local import embedded
from ops.reports.slo.state import state
from producer.connection import connect
from tests.support.past import Ended, write
from worker.history.document import ALL
from worker.objectives.indicators import Sli
from worker.objectives.policy import Maintenance, MaintenanceWindow, SloPolicy, Targets
from worker.objectives.watch import Watch

BEGIN, END = datetime(2026, 3, 4, tzinfo=UTC), datetime(2026, 4, 8, tzinfo=UTC)
WINDOW_MINUTES = {"success": 5, "latency": 15, "cost": 15, "burn": 60}
SLOW_BURNS = ["2026-03-04", "2026-04-06"]  # each of these outages costs more than half of its month's error budget
GRACE = timedelta(seconds=30)
ENDS_WITHIN = timedelta(minutes=35)  # after the trouble: the longest `recent` minutes, and those to clear
P95 = 0.02


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}+00:00")


@dataclass(frozen=True)
class Trouble:
    """What went wrong from `begin` up to `end`, and which alarms of all jobs that must open."""

    named: str
    begin: datetime
    end: datetime
    alarms: tuple[str, ...]
    failing: float = 0.0  # share of the jobs
    slower: float = 1.0
    dearer: float = 1.0


MAINTENANCE = MaintenanceWindow(begin=at("03-25 02:10"), end=at("03-25 02:50"), why="a new version of Redis")
TROUBLES = (
    Trouble("OpenAI, elevated errors", at("03-04 16:00"), at("03-04 16:30"), ("success", "burn"), failing=0.6),
    Trouble("a dear route", at("03-12 09:00"), at("03-12 12:00"), ("cost",), dearer=6),
    Trouble("a slow week", at("03-16 00:00"), at("03-23 00:00"), ("latency",), slower=4),
    Trouble("maintenance", MAINTENANCE.begin, MAINTENANCE.end, (), failing=1),
    Trouble("Claude, elevated errors", at("04-06 15:00"), at("04-06 16:30"), ("success", "burn"), failing=0.9),
    Trouble("Claude again", at("04-07 14:32"), at("04-07 15:59"), ("success", "burn"), failing=0.9),
)
AROUND = timedelta(minutes=45)  # the begin and the end of trouble, there are more jobs and looks
QUIET_NIGHT = range(1, 5)  # hours with two requests each, of which one fails
POLICY = SloPolicy(
    targets=Targets(success_percent=99.5, p95_answer_seconds=2.5, average_cost_usd=0.015),
    maintenance=Maintenance(windows=(MAINTENANCE,)),
)


def near(now: datetime) -> bool:
    """Whether trouble begins, ends, or lasts for some hours now."""
    return any(
        abs(now - t.begin) < AROUND or abs(now - t.end) < AROUND or (t.begin < now < t.end < t.begin + 6 * AROUND)
        for t in TROUBLES
    )


def jobs() -> Iterator[Ended]:
    """Six jobs a minute around trouble, else one in four minutes; at night two in an hour, except in the slow week."""
    rand, minute = random.Random(7), BEGIN
    while minute < END:
        trouble = next((t for t in TROUBLES if t.begin <= minute < t.end), None)
        quiet = minute.hour in QUIET_NIGHT and trouble is None
        count = (2 if minute.minute == 0 else 0) if quiet else 6 if near(minute) else int(minute.minute % 4 == 0)
        for number in range(count):
            failing = trouble.failing if trouble else 0.0
            died = number == 1 if quiet and minute.day % 7 == 0 else rand.random() < failing
            yield Ended(
                int((minute + timedelta(seconds=60 * number / count)).timestamp() * 1000),
                tenant=rand.choice(("acme", "globex")),
                feature=rand.choice(("faq", "essays")),
                answer_ms=rand.lognormvariate(7, 0.3) * (trouble.slower if trouble else 1),
                micros=int(rand.lognormvariate(8.8, 0.4) * (trouble.dearer if trouble else 1)),
                died="exhausted" if died else "",
                failed=(("anthropic/sonnet", "overloaded"),) if died else (),
            )
        minute += timedelta(minutes=1)


def truth(ended: list[Ended], since: datetime) -> dict[Sli, float]:
    """The indicators, from the jobs themselves."""
    window = MAINTENANCE.begin.timestamp() * 1000, MAINTENANCE.end.timestamp() * 1000
    mine = [j for j in ended if j.at_ms >= since.timestamp() * 1000 and not window[0] <= j.at_ms < window[1]]
    answered = [job for job in mine if not job.died]
    last = -(-len(answered) * 95 // 100) - 1
    return {
        Sli.SUCCESS: 100 * len(answered) / len(mine),
        Sli.ANSWER: sorted(job.answer_ms for job in answered)[last] / 1000,
        Sli.AVERAGE_COST: sum(job.micros for job in answered) / 1e6 / len(mine),
        Sli.P95_COST: sorted(job.micros for job in answered)[last] / 1e6,
    }


def wrong_indicators(client: redis.Redis, ended: list[Ended]) -> list[str]:
    found = []
    now_ms = int(END.timestamp() * 1000) - 1
    scopes = [(ALL, "")] + [("tenant", n) for n in ("acme", "globex")] + [("feature", n) for n in ("faq", "essays")]
    for days in (30, 7, 1):
        since = END - timedelta(days=days)
        for dimension, name in scopes:
            mine = [job for job in ended if not name or name in (job.tenant, job.feature)]
            (measured, *_) = state(client, POLICY, int(since.timestamp() * 1000), now_ms, dimension, name).scopes
            values = {each.sli: each.value for each in measured.indicators}
            for sli, exact in truth(mine, since).items():
                value, share = values[sli] or 0, P95 if sli in (Sli.ANSWER, Sli.P95_COST) else 1e-9
                if abs(value - exact) > share * exact:
                    found.append(f"{days} days, {dimension} {name}: {sli} is {value}, in truth {exact}")
    return found


Spans = dict[str, list[tuple[datetime, datetime]]]


def alarms(client: redis.Redis) -> Spans:
    """When each alarm of all jobs was seen open: (first look, last look), in order."""
    watch, spans, last = Watch(client, lambda: POLICY), Spans(), {}
    now = BEGIN + timedelta(seconds=12)
    while now < END:
        for alarm in {each.alarm for each in watch.look(int(now.timestamp() * 1000)) if not each.name}:
            mine = spans.setdefault(str(alarm), [])
            if last.get(alarm) is not None and mine and mine[-1][1] == last[alarm]:
                mine[-1] = (mine[-1][0], now)
            else:
                mine.append((now, now))
        last = {alarm: spans[alarm][-1][1] for alarm in spans if spans[alarm][-1][1] == now}
        now += timedelta(minutes=1 if near(now) else 20)
    return spans


def wrong_alarms(spans: Spans) -> list[str]:
    found, left = [], {alarm: list(of) for alarm, of in spans.items() if alarm != "budget"}
    for trouble in TROUBLES:
        for alarm in trouble.alarms:
            latest = trouble.begin + timedelta(minutes=WINDOW_MINUTES[alarm]) + GRACE
            ours = [s for s in left.get(alarm, ()) if trouble.begin <= s[0] <= latest]
            if len(ours) != 1:
                found.append(f"{trouble.named}: {alarm} opened {len(ours)} times by {latest:%H:%M:%S}")
                continue
            left[alarm].remove(ours[0])
            print(f"  {trouble.named:24} {alarm:8} {_after(ours[0][0], trouble.begin):>14} after it began, "
                  f"closed {_after(ours[0][1], trouble.end):>14} after its end")  # fmt: skip
            if ours[0][1] > trouble.end + ENDS_WITHIN:
                found.append(f"{trouble.named}: {alarm} lasts until {ours[0][1]}")
    found += [f"{alarm} opened at {begin} without a reason" for alarm, of in left.items() for begin, _ in of]
    budget = [begin.date().isoformat() for begin, _ in spans.get("budget", ())]
    return found if budget == SLOW_BURNS else [*found, f"the slow burn began on {budget}"]


def _after(later: datetime, earlier: datetime) -> str:
    return str(later - earlier)


def main() -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, embedded.running(Path(folder)) as url, connect(url) as client:
        ended = list(jobs())
        write(client, url, ended, POLICY.maintained)
        print(
            f"{len(ended):,} jobs of five weeks are in the history after {time.monotonic() - began:.0f} s", flush=True
        )
        wrong = wrong_indicators(client, ended)
        print("every indicator of 30, 7 and 1 days is compared, of all jobs, two tenants and two features", flush=True)
        wrong += wrong_alarms(alarms(client))
    for line in wrong:
        print(line)
    print(f"{'FAILED' if wrong else 'passed'} after {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
