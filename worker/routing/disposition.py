"""No route answered: is that for good, for now, or for want of an open route?"""

from __future__ import annotations

from collections.abc import Callable

from producer.job import DeadReason
from producer.policy import JobPolicy
from producer.trail import RejectedFor
from producer.waiting import WaitReason
from worker.breakers.shared import Withheld
from worker.errors.catalog import UNABLE, Action
from worker.humanize import many
from worker.money.ledger import USED_UP_SECONDS
from worker.queue.claim import Claim
from worker.queue.outcomes import Dead, Outcome, Park, Released, Retry, Trail
from worker.queue.trail import excused
from worker.queue.waiting import MONEY, Waiting
from worker.routing.answer import HeldBack, Unanswered
from worker.routing.execution_context import Spend
from worker.routing.plan import BYPASS, Plan
from worker.routing.planner import PASSES

PARK_MARGIN_SECONDS = 0.5  # after the opening: whoever probed last lets another job go first
PARK_UNTRIED_SECONDS = 10.0  # jobs for which no route is open do not ask again and again while others are served
PARK_WITHHELD_SECONDS = (10.0, 300.0)  # first and longest, while a route that may be able to is paused

PARK_LOCAL_SECONDS = 3.0  # and up to twice as long: until this worker's machine is asked again

PARK_BUSY_SECONDS, PATIENCE_SHARE = 30.0, 0.2  # at most, and of the time that the job has waited

_FINAL = {Action.REJECT: DeadReason.REJECTED, Action.REFUSE: DeadReason.REFUSED}
_COST = {RejectedFor.OVER_COST, RejectedFor.NO_PRICE}


def outcome_of(
    claim: Claim,
    policy: JobPolicy,
    unanswered: Unanswered,
    plan: Plan,
    spend: Spend,
    jitter: Callable[[], float],
) -> Outcome:
    """A job that takes any route keeps its place when none is open: none is open to the others either."""
    failures = unanswered.failures
    any_route_will_do = not (plan.rejected or unanswered.others_may or plan.order == BYPASS)
    last = failures[-1] if failures else None
    said = f"{last.code}: {last.detail}".rstrip(": ") if last else "no route may be tried"
    has_attempts = spend.attempts_left > 0

    if last and (reason := _FINAL.get(last.action)):
        return Dead(reason, said, spend.trail, policy.keep_dead_seconds)
    if unanswered.held_back is not None and has_attempts:
        return _held_back(claim, unanswered.held_back, spend, jitter)
    if unanswered.local and has_attempts:
        return Park(
            PARK_LOCAL_SECONDS * (1 + jitter()), Waiting(WaitReason.LOCAL, detail=unanswered.local), spend.trail
        )
    if failures and unanswered.withheld:
        return _beside_a_paused_route(unanswered.withheld, said, spend, jitter)
    if failures and all(failure.action in UNABLE for failure in failures):
        return _unable(policy, unanswered, plan, said, spend, jitter)
    if unanswered.opens_in is not None and not spend.burned and has_attempts:
        if not failures and any_route_will_do:
            return Released(spend.trail)
        soonest = 0.0 if failures else PARK_UNTRIED_SECONDS
        wait = max(unanswered.opens_in, soonest) + PARK_MARGIN_SECONDS * (1 + jitter())
        waiting = Waiting(WaitReason.ROUTE, unanswered.withheld_subjects, said if failures else unanswered.closed)
        return Park(wait, waiting, spend.trail, in_turn=any_route_will_do)
    return _again(claim, policy, spend, said, jitter)


def wait_for_this_machine(trouble: str, trail: Trail, jitter: Callable[[], float]) -> Park:
    """Trouble of this worker's machine uses up neither an execution nor an attempt; another worker may take the job."""
    return Park(PARK_LOCAL_SECONDS * (1 + jitter()), Waiting(WaitReason.LOCAL, detail=trouble), trail)


def _held_back(claim: Claim, held_back: HeldBack, spend: Spend, jitter: Callable[[], float]) -> Park:
    """While running calls hold what is left, old jobs ask less often: many would ask in vain."""
    waited = (claim.claimed_ms - claim.accepted_ms) / 1000
    busy = held_back.waiting.reason is WaitReason.BUDGET_RESERVED
    patience = min(waited * PATIENCE_SHARE, PARK_BUSY_SECONDS) if busy else 0.0
    return Park(max(held_back.seconds, patience) * (1 + jitter()), held_back.waiting, spend.trail)


def _beside_a_paused_route(withheld: Withheld, said: str, spend: Spend, jitter: Callable[[], float]) -> Park:
    """The routes that were called failed, and one that may be able to answer is paused."""
    trail, before = excused(spend.trail, spend.known)
    longest = min(PARK_WITHHELD_SECONDS[0] * 2 ** min(before, 10), PARK_WITHHELD_SECONDS[1])
    detail = f"{withheld}; the others: {said}"
    waiting = Waiting(WaitReason.PAUSED_ROUTE, (withheld.subject,), detail)
    return Park(longest * (1 + jitter()) / 2, waiting, trail)


def _unable(
    policy: JobPolicy, unanswered: Unanswered, plan: Plan, said: str, spend: Spend, jitter: Callable[[], float]
) -> Outcome:
    """Every route that was called cannot do what the job asks."""
    passes = any(rejected.code in PASSES for rejected in plan.rejected)
    if (unanswered.passed_over is None and not passes) or spend.attempts_left <= 0:
        return Dead(DeadReason.REJECTED, said, spend.trail, policy.keep_dead_seconds)
    wait = max(unanswered.passed_over or 0.0, PARK_UNTRIED_SECONDS) + PARK_MARGIN_SECONDS * jitter()
    return Park(wait, Waiting(WaitReason.ABLE_ROUTE, unanswered.withheld_subjects, said), spend.trail)


def _again(claim: Claim, policy: JobPolicy, spend: Spend, said: str, jitter: Callable[[], float]) -> Outcome:
    """Another execution, if the job has attempts and executions left."""
    over = ""
    if spend.attempts_left <= 0:
        over = f"{many(policy.attempts, 'attempt')}; the last: {said}"
    elif claim.executions + 1 >= policy.executions:
        over = f"{many(policy.executions, 'execution')}; the last: {said}"
    if over:
        return Dead(DeadReason.EXHAUSTED, over, spend.trail, policy.keep_dead_seconds)
    wait = min(policy.backoff_seconds.first * 2**claim.executions, policy.backoff_seconds.max) * jitter()
    return Retry(wait, said, spend.trail)


def without_candidate(policy: JobPolicy, plan: Plan, trail: Trail, jitter: Callable[[], float]) -> Outcome:
    """Every route of the map was rejected before it was called."""
    said = "; ".join(f"{rejected.route.name}: {rejected.reason}" for rejected in plan.rejected)
    codes = {rejected.code for rejected in plan.rejected}
    if plan.left_out:
        waiting = Waiting(WaitReason.PINNED_ROUTE, detail=plan.left_out)
        return Park(PARK_UNTRIED_SECONDS * (1 + jitter()), waiting, trail)
    if codes & PASSES:
        waiting = Waiting(WaitReason.SLOW_ROUTE, detail=said)
        return Park(PARK_UNTRIED_SECONDS * (1 + jitter()), waiting, trail)
    if RejectedFor.OVER_BUDGET in codes:
        return Park(USED_UP_SECONDS * (1 + jitter()), Waiting(WaitReason.BUDGET, detail=said), trail)
    reason = DeadReason.OVER_BUDGET if codes & _COST else DeadReason.REJECTED
    return Dead(reason, f"no route can do what this job needs: {said}", trail, policy.keep_dead_seconds)


def without_cold_queue(outcome: Outcome, policy: JobPolicy) -> Outcome:
    """With ENABLE_COLD_QUEUE off no job waits for a better time: it is a dead letter at once."""
    reason = DeadReason.EXHAUSTED
    match outcome:
        case Retry(_, why, trail):
            pass
        case Park(_, waiting, trail):
            why = str(waiting)
            reason = DeadReason.OVER_BUDGET if waiting.reason in MONEY else reason
        case Released(trail):
            why = "no route is open"
        case _:
            return outcome
    return Dead(reason, f"{why}; ENABLE_COLD_QUEUE is off, so it does not wait", trail, policy.keep_dead_seconds)
