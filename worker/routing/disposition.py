"""No route answered: is that for good, for now, or for want of an open route?"""

from __future__ import annotations

from collections.abc import Callable

from producer.job import DeadReason
from producer.policy import JobPolicy
from producer.trail import RejectedFor
from worker.errors.catalog import UNABLE, Action
from worker.queue.claim import Claim
from worker.queue.outcomes import Dead, Outcome, Park, Released, Retry, Trail
from worker.queue.trail import excused
from worker.routing.answer import HeldBack, Unanswered
from worker.routing.execution_context import Walk
from worker.routing.plan import BYPASS, Plan
from worker.routing.planner import PASSES

PARK_MARGIN_SECONDS = 0.5  # after the opening: whoever probed last lets another job go first
PARK_UNTRIED_SECONDS = 10.0  # jobs for which no route is open do not ask again and again while others are served
PARK_WITHHELD_SECONDS = (10.0, 300.0)  # first and longest, while a route that may be able to is paused

PARK_BUSY_SECONDS, PATIENCE_SHARE = 30.0, 0.2  # at most, and of the time that the job has waited

_FINAL = {Action.REJECT: DeadReason.REJECTED, Action.REFUSE: DeadReason.REFUSED}
_MONEY = {RejectedFor.OVER_COST, RejectedFor.NO_PRICE}


def outcome_of(
    claim: Claim,
    policy: JobPolicy,
    unanswered: Unanswered,
    walk: Walk,
    jitter: Callable[[], float],
) -> Outcome:
    """A job that takes any route keeps its place when none is open: none is open to the others either."""
    failures, planned = unanswered.failures, walk.plan
    any_route_will_do = not (planned.rejected or unanswered.others_may or planned.order == BYPASS)
    last = failures[-1] if failures else None
    held_back = unanswered.held_back if walk.attempts_left > 0 else None
    said = f"{last.code}: {last.detail}".rstrip(": ") if last else "no route may be tried"

    def dead(reason: DeadReason, detail: str = said) -> Dead:
        return Dead(reason, detail, walk.trail, policy.keep_dead_seconds)

    if last and (reason := _FINAL.get(last.action)):
        return dead(reason)
    if held_back is not None:
        return _held_back(claim, held_back, walk, jitter)
    if failures and unanswered.withheld:
        trail, before = excused(walk.trail, walk.known)
        longest = min(PARK_WITHHELD_SECONDS[0] * 2 ** min(before, 10), PARK_WITHHELD_SECONDS[1])
        wait = longest * (1 + jitter()) / 2
        return Park(wait, f"a paused route: {unanswered.withheld}; the others: {said}", trail)
    if failures and all(failure.action in UNABLE for failure in failures):
        passes = any(rejected.code in PASSES for rejected in planned.rejected)
        if (unanswered.passed_over is None and not passes) or walk.attempts_left <= 0:
            return dead(DeadReason.REJECTED)
        wait = max(unanswered.passed_over or 0.0, PARK_UNTRIED_SECONDS) + PARK_MARGIN_SECONDS * jitter()
        return Park(wait, f"a route that may be able to ({said})", walk.trail)
    if unanswered.opens_in is not None and not walk.burned and walk.attempts_left > 0:
        if not failures and any_route_will_do:
            return Released(walk.trail)
        soonest = 0.0 if failures else PARK_UNTRIED_SECONDS
        wait = max(unanswered.opens_in, soonest) + PARK_MARGIN_SECONDS * (1 + jitter())
        why = "a route to open" + (f" ({said})" if failures else f" ({unanswered.closed})" if unanswered.closed else "")
        return Park(wait, why, walk.trail, in_turn=any_route_will_do)
    return _again(claim, policy, walk, said, jitter)


def _held_back(claim: Claim, why: HeldBack, walk: Walk, jitter: Callable[[], float]) -> Park:
    """While running calls hold what is left, old jobs ask less often: many would ask in vain."""
    waited = (claim.claimed_ms - claim.accepted_ms) / 1000
    patience = min(waited * PATIENCE_SHARE, PARK_BUSY_SECONDS) if why.busy else 0.0
    return Park(max(why.seconds, patience) * (1 + jitter()), why.why, walk.trail)


def _again(claim: Claim, policy: JobPolicy, walk: Walk, said: str, jitter: Callable[[], float]) -> Outcome:
    """Another execution, if the job has attempts and executions left."""
    over = ""
    if walk.attempts_left <= 0:
        over = f"{policy.attempts} attempts; the last: {said}"
    elif claim.executions + 1 >= policy.executions:
        over = f"{policy.executions} executions; the last: {said}"
    if over:
        return Dead(DeadReason.EXHAUSTED, over, walk.trail, policy.keep_dead_seconds)
    wait = min(policy.backoff_seconds.first * 2**claim.executions, policy.backoff_seconds.max) * jitter()
    return Retry(wait, said, walk.trail)


def without_candidate(policy: JobPolicy, planned: Plan, trail: Trail, jitter: Callable[[], float]) -> Outcome:
    """Every route of the map was rejected before it was called."""
    said = "; ".join(f"{rejected.route.name}: {rejected.reason}" for rejected in planned.rejected)
    codes = {rejected.code for rejected in planned.rejected}
    if planned.waits_for:
        return Park(PARK_UNTRIED_SECONDS * (1 + jitter()), planned.waits_for, trail)
    if codes & PASSES:
        return Park(PARK_UNTRIED_SECONDS * (1 + jitter()), f"a route that may take it ({said})", trail)
    reason = DeadReason.OVER_BUDGET if codes & _MONEY else DeadReason.REJECTED
    return Dead(reason, f"no route can do what this job needs: {said}", trail, policy.keep_dead_seconds)


def without_cold(outcome: Outcome, policy: JobPolicy) -> Outcome:
    """With ENABLE_COLD_QUEUE off no job waits for a better time: a person is told of it at once."""
    match outcome:
        case Retry(_, why, trail) | Park(_, why, trail):
            pass
        case Released(trail):
            why = "no route is open"
        case _:
            return outcome
    detail = f"{why}; ENABLE_COLD_QUEUE is off, so it does not wait"
    reason = DeadReason.OVER_BUDGET if why.startswith("money: ") else DeadReason.EXHAUSTED
    return Dead(reason, detail, trail, policy.keep_dead_seconds)
