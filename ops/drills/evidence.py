"""What a step showed, and whether it is what was expected: one small check for each kind of evidence."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ops.drills.scenario import Evidence, Step
from ops.drills.stage import NAMES, PERSON, TIERS, Stage
from ops.simulators.slack_api import Posted
from producer import keyspace
from producer.job import JobResult, JobStatus
from producer.scripts import ask
from worker.breakers import health
from worker.notify.kinds import KIND_INFO, Kind
from worker.routing.plan import BYPASS

Limit = str | float | None


@dataclass(frozen=True)
class Finding:
    """One line of a verdict: what was measured, and what was expected."""

    name: str
    passed: bool
    measured: str
    expected: str

    def __str__(self) -> str:
        return f"{self.name}: {self.measured}" + ("" if self.passed else f" — expected {self.expected}")


@dataclass
class Measured:
    """The jobs of a step and what was seen of them. Times are of time.monotonic(), or seconds since `began`."""

    step: Step
    ids: list[str]
    began: float
    told_before: int
    answered_before: int
    all_ids: list[str]
    baseline: Measured | None = None
    late_ids: list[str] = field(default_factory=list)  # handed in after the pause
    paused_after: float | None = None
    told: Posted | None = None
    told_after: float | None = None
    first_after: float | None = None  # seconds until the first job of the step was done
    results: list[JobResult] = field(default_factory=list)

    def look(self, stage: Stage) -> None:
        """Note when the first answer and the message came."""
        if self.first_after is None and self.done_count(stage):
            self.first_after = time.monotonic() - self.began
        if self.told is None and self.step.kind:
            title = KIND_INFO[Kind(self.step.kind)].title.lower()
            for posted in stage.messages[self.told_before :]:
                if title in posted.whole().lower() or (
                    self.step.kind == Kind.DEAD_LETTERS and "dead letter" in posted.whole()
                ):
                    self.told, self.told_after = posted, time.monotonic() - self.began

    def done_count(self, stage: Stage) -> int:
        scores = stage.client.zmscore(keyspace.finished(stage.producer.queue), self.ids) if self.ids else []
        return sum(score is not None for score in scores)

    def running(self, stage: Stage) -> list[str]:
        (leases,) = ask(stage.client, [("ZRANGE", keyspace.leases(stage.producer.queue), 0, -1)])
        running = {lease.decode().rpartition(":")[0] for lease in leases}
        return [job_id for job_id in self.ids if job_id in running]

    def cold(self, stage: Stage) -> bool:
        """Whether every job waits in the queue and every faulted route is out of use."""
        waits = (JobStatus.PARKED, JobStatus.QUEUED, JobStatus.RETRYING)
        waiting = all(result.status in waits for result in stage.results(self.ids))
        return waiting and not self.serving_routes(stage)

    def _routes(self) -> list[str]:
        tiers = [tier for tier in TIERS if tier in self.step.faults] or list(TIERS)
        return [name for tier in tiers for name in NAMES[tier]]

    def serving_routes(self, stage: Stage) -> list[str]:
        return [name for name, known in health.of_routes(stage.client, self._routes()).items() if known.serves]

    def closed_routes(self, stage: Stage) -> list[str]:
        """The routes that no job may try now. One whose cooldown is over is tried by the next job that comes to it."""
        names = [name for tier in TIERS for name in NAMES[tier]]
        found = health.of_routes(stage.client, names)
        return [name for name, known in found.items() if not known.serves and known.reopens_in_seconds]

    @property
    def done(self) -> list[JobResult]:
        return [result for result in self.results if result.status is JobStatus.DONE]

    @property
    def seconds(self) -> list[float]:
        """From handing in to the answer, of each done job, sorted."""
        return sorted(((each.queue_latency_ms or 0) + (each.run_ms or 0)) / 1000 for each in self.done)

    @property
    def p95(self) -> float | None:
        return self.seconds[max(0, math.ceil(0.95 * len(self.seconds)) - 1)] if self.seconds else None

    @property
    def success_percent(self) -> float | None:
        return 100 * len(self.done) / len(self.results) if self.results else None


def _all_done(stage: Stage, found: Measured, limit: Limit) -> Finding:
    ids = found.ids if found.step.jobs else found.all_ids
    results = stage.results(ids)
    done = sum(result.status is JobStatus.DONE for result in results)
    return Finding("jobs done", done == len(ids), f"{done} of {len(ids)}", "all")


def _answered_by(stage: Stage, found: Measured, limit: Limit) -> Finding:
    tiers = [result.tier for result in found.done]
    own = sum(tier == limit for tier in tiers)
    return Finding(f"answered by {limit} routes", own == len(tiers) > 0, f"{own} of {len(tiers)}", "all")


def _within_attempts(stage: Stage, found: Measured, limit: Limit) -> Finding:
    failed = max((sum(each.outcome != "ok" for each in result.attempted) for result in found.done), default=0)
    return Finding(
        "failed attempts before an answer", failed <= _number(limit), f"at most {failed}", f"at most {limit}"
    )


def _slowest(stage: Stage, found: Measured, limit: Limit) -> Finding:
    slowest = max(found.seconds, default=math.inf)
    return Finding("slowest answer", slowest <= _number(limit), f"{slowest:.1f} s", f"at most {limit} s")


def _failover(stage: Stage, found: Measured, limit: Limit) -> Finding:
    after = found.first_after
    measured = "no answer came" if after is None else f"{after:.1f} s"
    return Finding(
        "time to the first answer (TTR)", after is not None and after <= _number(limit), measured, f"at most {limit} s"
    )


def _p95(stage: Stage, found: Measured, limit: Limit) -> Finding:
    p95, before = found.p95, found.baseline.p95 if found.baseline else None
    was = f", {before:.1f} s before" if before is not None else ""
    measured = "no answer came" if p95 is None else f"{p95:.1f} s{was}"
    return Finding("p95", p95 is not None and p95 <= _number(limit), measured, f"at most {limit} s")


def _success(stage: Stage, found: Measured, limit: Limit) -> Finding:
    percent = found.success_percent or 0.0
    return Finding("success rate (SR)", percent >= _number(limit), f"{percent:.1f}%", f"at least {limit}%")


def _cost(stage: Stage, found: Measured, limit: Limit) -> Finding:
    costs = [each.cost_usd for each in found.done if each.cost_usd is not None]
    average = sum(costs) / len(costs) if costs else math.inf
    return Finding("cost of a job", average <= _number(limit), f"${average:.6f}", f"at most ${limit}")


def _paid_once(stage: Stage, found: Measured, limit: Limit) -> Finding:
    paid = stage.answered() - found.answered_before
    results = stage.results(found.ids)
    done = sum(result.status is JobStatus.DONE for result in results)
    return Finding("answers paid for", paid == done, f"{paid} for {done} jobs", "one for each job")


def _breakers_open(stage: Stage, found: Measured, limit: Limit) -> Finding:
    serving = found.serving_routes(stage)
    measured = f"still in use: {', '.join(serving)}" if serving else "every breaker is open"
    return Finding("breakers", not serving, measured, "every breaker is open")


def _breakers_closed(stage: Stage, found: Measured, limit: Limit) -> Finding:
    closed = found.closed_routes(stage)
    measured = f"not in use: {', '.join(closed)}" if closed else "every route may be used"
    return Finding("after the rollback", not closed, measured, "every route may be used")


def _cold_holds(stage: Stage, found: Measured, limit: Limit) -> Finding:
    results = stage.results(found.ids)
    waiting = sum(not result.status.ended for result in results)
    dead = sum(result.status is JobStatus.DEAD for result in results)
    return Finding(
        "the queue holds the jobs", waiting == len(found.ids), f"{waiting} wait, {dead} dead", "all wait, none is dead"
    )


def _new_waits(stage: Stage, found: Measured, limit: Limit) -> Finding:
    results = stage.results(found.late_ids)
    queued = sum(result.status is JobStatus.QUEUED for result in results)
    started = len(results) - queued
    return Finding(
        "new work after the pause", started == 0 and queued > 0, f"{queued} wait, {started} started", "all wait"
    )


def _running_ends(stage: Stage, found: Measured, limit: Limit) -> Finding:
    return Finding(
        "running jobs", len(found.done) == len(found.ids), f"{len(found.done)} of {len(found.ids)} ended", "all end"
    )


def _paused(stage: Stage, found: Measured, limit: Limit) -> Finding:
    after = found.paused_after
    measured = "it was not paused" if after is None else f"after {after:.1f} s"
    return Finding("paused by the budget", after is not None and after <= _number(limit), measured, f"within {limit} s")


def _told(stage: Stage, found: Measured, limit: Limit) -> Finding:
    after = found.told_after
    measured = "no message came" if after is None else f"after {after:.1f} s"
    return Finding(
        f"message of the kind {found.step.kind}",
        after is not None and after <= _number(limit),
        measured,
        f"within {limit} s",
    )


def _handover(stage: Stage, found: Measured, limit: Limit) -> Finding:
    text = found.told.whole() if found.told else ""
    wanted = {
        "a job id": any(job_id in text for job_id in found.ids),
        "the next action": "failover dlq" in text or "failover review" in text,
        "who acts": PERSON.name in text,
        "the client's text": "failover messages show" in text,
    }
    missing = [name for name, there in wanted.items() if not there]
    measured = f"without {', '.join(missing)}" if missing else ", ".join(wanted)
    return Finding("the hand-over", not missing, measured, ", ".join(wanted))


def _parity(stage: Stage, found: Measured, limit: Limit) -> Finding:
    """The same form: a text, ended as usual, by the first route of the map; its words are another model's matter."""
    good = [each for each in found.done if each.text and each.route == NAMES["hot"][0] and not each.degraded]
    return Finding(
        f"parity on the {BYPASS} path", len(good) == len(found.ids) > 0, f"{len(good)} of {len(found.ids)}", "all"
    )


def _by_primary(stage: Stage, found: Measured, limit: Limit) -> Finding:
    own = sum(each.route in stage.primary for each in found.done)
    wanted = len(found.done) if limit == "all" else 0
    return Finding(
        "answered by the primary", own == wanted and bool(found.done), f"{own} of {len(found.done)}", str(limit)
    )


def _same_form(stage: Stage, found: Measured, limit: Limit) -> Finding:
    before = found.baseline.done if found.baseline else []
    as_json = bool(before) and all(_is_json(each.text) for each in before)
    good = [each for each in found.done if each.text and not each.degraded and (not as_json or _is_json(each.text))]
    form = "JSON, as before" if as_json else "a whole answer"
    return Finding(
        f"the same form ({form})", len(good) == len(found.ids) > 0, f"{len(good)} of {len(found.ids)}", "all"
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _number(limit: Limit) -> float:
    return float(limit) if limit is not None else math.inf


Check = Callable[[Stage, Measured, Limit], Finding]
CHECKS: Mapping[Evidence, Check] = {
    Evidence.ALL_DONE: _all_done,
    Evidence.ANSWERED_BY: _answered_by,
    Evidence.WITHIN_ATTEMPTS: _within_attempts,
    Evidence.SLOWEST_SECONDS: _slowest,
    Evidence.FAILOVER_SECONDS: _failover,
    Evidence.P95_SECONDS: _p95,
    Evidence.SUCCESS_PERCENT: _success,
    Evidence.COST_USD: _cost,
    Evidence.PAID_ONCE: _paid_once,
    Evidence.BREAKERS_OPEN: _breakers_open,
    Evidence.BREAKERS_CLOSED: _breakers_closed,
    Evidence.COLD_HOLDS: _cold_holds,
    Evidence.NEW_WORK_WAITS: _new_waits,
    Evidence.RUNNING_ENDS: _running_ends,
    Evidence.PAUSED_SECONDS: _paused,
    Evidence.TOLD_SECONDS: _told,
    Evidence.HANDOVER: _handover,
    Evidence.PARITY: _parity,
    Evidence.BY_PRIMARY: _by_primary,
    Evidence.SAME_FORM: _same_form,
}
