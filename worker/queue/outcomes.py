"""The outcomes of one execution: a closed set. `Executor.run` returns nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from producer.job import DeadReason, JobResult
from producer.trail import TrailEntry
from worker.queue.claim import Claim
from worker.queue.trail import trail_of
from worker.queue.waiting import Waiting

Trail = Sequence[TrailEntry]

KEEP_DEAD_SECONDS = 90 * 86400


@dataclass(frozen=True)
class Done:
    """A provider answered. `saved`: not the first route of the job's plan answered. `thrifty`: the answer was degraded to
    save cost."""

    result: JobResult
    keep_seconds: int
    saved: bool = False
    thrifty: bool = False


@dataclass(frozen=True)
class Retry:
    """The job failed on every route that could take it; it is executed again after `wait_seconds`. Uses up an execution."""

    wait_seconds: float
    why: str
    trail: Trail


@dataclass(frozen=True)
class Park:
    """No route could take the job now; it waits `wait_seconds`. Uses up no execution.

    The job returns to the tail of the queue, so that other jobs can use the routes that are open. With `in_turn` it returns
    to the head, because no other job could be executed either. Jobs that return stand in the order of their acceptance.
    """

    wait_seconds: float
    waiting: Waiting
    trail: Trail
    in_turn: bool = False


@dataclass(frozen=True)
class Dead:
    """The job becomes a dead letter: no further execution can help, or none is allowed."""

    reason: DeadReason
    detail: str
    trail: Trail
    keep_seconds: int


@dataclass(frozen=True)
class Released:
    """The worker gives the job back unfinished. Uses up no execution; the trail has the attempt that was cut off."""

    trail: Trail


Outcome = Done | Retry | Park | Dead | Released


@dataclass(frozen=True)
class Executed:
    """An outcome, with the job's totals over all its executions so far: HTTP calls, and milliseconds of work. `tenant`,
    `feature`, `user`, `job_type`: of the job; "" if it could not be read. `traceparent`: the trace that it names, if any.
    `promised_ms`: by when, since it was accepted, its answer is not late."""

    outcome: Outcome
    attempts: int
    run_ms: int
    tenant: str = ""
    feature: str = ""
    promised_ms: int | None = None
    user: str = ""
    job_type: str = ""
    traceparent: str = ""


def without_attempt(claim: Claim, outcome: Outcome) -> Executed:
    """An outcome of an execution that made no attempt: the totals stay as they were claimed."""
    return Executed(outcome, claim.attempts, claim.run_ms)


def given_back(claim: Claim) -> Executed:
    """The outcome of a claim that was not executed: Released."""
    return without_attempt(claim, Released(trail_of(claim)))


def unwritable(claim: Claim) -> Executed:
    """Replaces an outcome that cannot be written to Redis. The job dies, because another execution would be paid again."""
    dead = Dead(DeadReason.EXHAUSTED, "its outcome cannot be written, see the worker's log", (), KEEP_DEAD_SECONDS)
    return without_attempt(claim, dead)
