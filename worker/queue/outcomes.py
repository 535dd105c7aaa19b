"""How one execution of a job ends: a closed set. Nothing else comes out of `execution.run`."""

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
    """A provider answered. `saved`: it was not the first route of the job's plan. `thrifty`: what was given up was for
    money."""

    result: JobResult
    keep_seconds: int
    saved: bool = False
    thrifty: bool = False


@dataclass(frozen=True)
class Retry:
    """The job failed on every route that it could take; it is executed again after `wait_seconds`. Burns an execution."""

    wait_seconds: float
    why: str
    trail: Trail


@dataclass(frozen=True)
class Park:
    """No route could take the job now; it waits `wait_seconds`. Burns nothing.

    It returns to the tail of the queue, so that others may use what it cannot; `in_turn` to the head, as no other job
    could go either.
    """

    wait_seconds: float
    waiting: Waiting
    trail: Trail
    in_turn: bool = False


@dataclass(frozen=True)
class Dead:
    """No further execution can help, or none is allowed."""

    reason: DeadReason
    detail: str
    trail: Trail
    keep_seconds: int


@dataclass(frozen=True)
class Released:
    """The worker gives the job back unfinished. Burns nothing; the trail tells what was broken off."""

    trail: Trail


Outcome = Done | Retry | Park | Dead | Released


@dataclass(frozen=True)
class Executed:
    """An outcome, with the job's totals over all its executions so far."""

    outcome: Outcome
    attempts: int
    run_ms: int


def without_attempt(claim: Claim, outcome: Outcome) -> Executed:
    """An outcome without an attempt."""
    return Executed(outcome, claim.attempts, claim.run_ms)


def given_back(claim: Claim) -> Executed:
    """A claim that was not executed."""
    return without_attempt(claim, Released(trail_of(claim)))


def unwritable(claim: Claim) -> Executed:
    """In place of an outcome that has no form in Redis: asked again, it would be paid for again."""
    dead = Dead(DeadReason.EXHAUSTED, "its outcome cannot be written, see the worker's log", (), KEEP_DEAD_SECONDS)
    return without_attempt(claim, dead)
