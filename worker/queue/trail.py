"""A job's trail over its executions: what is kept of it, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from producer.trail import BROKEN_OFF, Attempt, Planned, Rejection, TrailEntry
from worker.queue.claim import Claim
from worker.routes.prices import PER_MILLION

FREE_TOLD = 20  # kept probes, and kept excused attempts: they cost the job nothing, so there may be very many

NO_TRAIL = b"[]"
_TRAIL = TypeAdapter(list[TrailEntry])


def trail_of(claim: Claim) -> list[TrailEntry]:
    """The job's trail so far: its attempts and its newest plan, which holds what all attempts before it cost.

    Of probes and of excused attempts only the newest FREE_TOLD each are kept, so that the trail stays small. A trail that
    cannot be read counts as empty: the job matters more than its trail.
    """
    if claim.trail == NO_TRAIL:
        return []  # most jobs
    try:
        trail = [entry for entry in _TRAIL.validate_json(claim.trail) if not isinstance(entry, Rejection)]
    except ValidationError:
        return []
    attempts = [entry for entry in trail if isinstance(entry, Attempt)]
    free = ([e for e in attempts if e.probe], [e for e in attempts if e.excused])
    forgotten = {id(entry) for entries in free for entry in entries[:-FREE_TOLD]}
    forgotten.update(id(entry) for entry in [entry for entry in trail if isinstance(entry, Planned)][:-1])
    return [entry for entry in trail if id(entry) not in forgotten]


def charged(trail: Sequence[TrailEntry]) -> int:
    """The number of attempts that count toward the policy's cap on attempts."""
    return sum(isinstance(entry, Attempt) and entry.charged for entry in trail)


def ended(trail: Sequence[TrailEntry]) -> int:
    """The number of attempts that the drain did not cut off."""
    return sum(isinstance(entry, Attempt) and entry.outcome != BROKEN_OFF for entry in trail)


def excused(trail: Sequence[TrailEntry], known: int) -> tuple[list[TrailEntry], int]:
    """(the trail with every attempt after its first `known` entries marked excused, the number excused before).

    Attempts are excused when the job has to wait because another route is paused: that is not the job's fault.
    """
    before = sum(isinstance(entry, Attempt) and entry.excused for entry in trail)
    return [
        entry.model_copy(update={"excused": True}) if isinstance(entry, Attempt) and position >= known else entry
        for position, entry in enumerate(trail)
    ], before


def cost_micros(trail: Sequence[TrailEntry]) -> int | None:
    """Micro-dollars of the attempts whose tokens are known; None if none are."""
    costs = [entry.cost_usd for entry in trail if isinstance(entry, Attempt) and entry.cost_usd is not None]
    return sum(round(cost * PER_MILLION) for cost in costs) if costs else None


def spent_micros(trail: Sequence[TrailEntry]) -> int:
    """Micro-dollars that all attempts cost, at their maximum where the cost is not known. Attempts before the newest plan
    count as the sum that the plan holds."""
    spent = 0
    for entry in trail:
        if isinstance(entry, Planned):
            spent = round(entry.spent_usd * PER_MILLION)
        elif isinstance(entry, Attempt):
            spent += round((entry.cost_usd or entry.may_cost_usd or 0.0) * PER_MILLION)
    return spent
