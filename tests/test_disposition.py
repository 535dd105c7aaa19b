"""What becomes of a job that no route answered, as a table: dead, parked and for how long, released, or tried again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from producer.job import DeadReason, JobResult, JobStatus
from producer.policy import JobPolicy
from producer.trail import Attempt, RejectedFor
from producer.waiting import WaitReason
from worker.breakers.shared import Withheld, WithheldBy
from worker.errors.catalog import Action, Failure
from worker.queue.claim import Claim
from worker.queue.outcomes import Dead, Done, Outcome, Park, Released, Retry
from worker.queue.waiting import Waiting
from worker.routes.route import Route
from worker.routes.schema import RouteEntry
from worker.routing.answer import HeldBack, Unanswered
from worker.routing.disposition import outcome_of, without_candidate, without_cold_queue
from worker.routing.execution_context import Spend
from worker.routing.plan import BYPASS, Plan, Rejected

POLICY = JobPolicy.model_validate(
    {"attempts": 6, "executions": 3, "backoff_seconds": {"first": 2, "max": 100}, "keep_dead_seconds": 1000}
)
ROUTE = Route("a/m", "hot", RouteEntry(provider="a", model="m", base_url="http://x"), "http://x")
CLAIM = Claim(
    "j",
    "e",
    "q",
    100_000,
    b"{}",
    0,
    10**9,
    executions=0,
    crashes=0,
    suspect=0,
    size=2,
    attempts=0,
    run_ms=0,
    trail=b"[]",
)
PLAN = Plan("listed", candidates=(ROUTE,))
PICKY = replace(PLAN, rejected=(Rejected(ROUTE, RejectedFor.LACKS_CAPABILITY, "no tools"),))
SLOW = replace(PLAN, rejected=(Rejected(ROUTE, RejectedFor.TOO_SLOW, "p95 9 s"),))

BROKEN = Failure("server_error", Action.RETRY, detail="boom")
REJECTED = Failure("invalid", Action.REJECT, detail="bad body")
REFUSED = Failure("content", Action.REFUSE)
UNFIT = Failure("not_supported", Action.ELSEWHERE, detail="no tools")
TOO_LONG = Failure("context_length", Action.LARGER, detail="too long")
PAUSED = Withheld(WithheldBy.PAUSE, "google")
BUDGET = HeldBack(Waiting(WaitReason.BUDGET, ("tenant:acme",)), 20.0)
RESERVED = HeldBack(Waiting(WaitReason.BUDGET_RESERVED, ("tenant:acme",)), 2.0)

SAID = "server_error: boom"


def outcome(
    unanswered: Unanswered, plan: Plan = PLAN, claim: Claim = CLAIM, attempts_left: int = 3, **spend: Any
) -> Outcome:
    """With a jitter of nothing."""
    return outcome_of(claim, POLICY, unanswered, plan, Spend(attempts_left, **spend), lambda: 0.0)


def dead(reason: DeadReason, detail: str) -> Dead:
    return Dead(reason, detail, [], 1000)


def park(seconds: float, reason: WaitReason, detail: str = "", *subjects: str, in_turn: bool = False) -> Park:
    return Park(seconds, Waiting(reason, subjects, detail), [], in_turn)


def failed(*failures: Failure, opens_in: float | None = None, **fields: Any) -> Unanswered:
    return Unanswered(failures, opens_in, **fields)


OUTCOMES: dict[str, tuple[Outcome, Outcome]] = {
    "a request that no route takes is dead": (
        outcome(failed(BROKEN, REJECTED)), dead(DeadReason.REJECTED, "invalid: bad body")
    ),
    "a refusal is dead, and said without a detail": (outcome(failed(REFUSED)), dead(DeadReason.REFUSED, "content")),
    "a rejection goes before a cap": (
        outcome(failed(REJECTED, held_back=BUDGET)), dead(DeadReason.REJECTED, "invalid: bad body")
    ),
    "the last failure decides": (outcome(failed(REJECTED, BROKEN)), Retry(0.0, SAID, [])),
    "a cap holds it": (outcome(failed(held_back=BUDGET)), Park(20.0, BUDGET.waiting, [])),
    "a cap holds it after a failure too": (outcome(failed(BROKEN, held_back=BUDGET)), Park(20.0, BUDGET.waiting, [])),
    "trouble of this machine parks it": (outcome(failed(local="no network")), park(3.0, WaitReason.LOCAL, "no network")),
    "trouble of this machine parks it after a failure too": (
        outcome(failed(BROKEN, local="no network"), burned=True), park(3.0, WaitReason.LOCAL, "no network")
    ),
    "a rejection goes before trouble of this machine": (
        outcome(failed(REJECTED, local="no network")), dead(DeadReason.REJECTED, "invalid: bad body")
    ),
    "without attempts no machine is waited for": (
        outcome(failed(BROKEN, local="no network"), attempts_left=0),
        dead(DeadReason.EXHAUSTED, f"6 attempts; the last: {SAID}"),
    ),
    "without attempts no cap is waited for": (
        outcome(failed(BROKEN, held_back=BUDGET), attempts_left=0),
        dead(DeadReason.EXHAUSTED, f"6 attempts; the last: {SAID}"),
    ),
    "an old job asks less often while calls hold what is left": (
        outcome(failed(held_back=RESERVED)), Park(20.0, RESERVED.waiting, [])
    ),
    "... at most each half minute": (
        outcome(failed(held_back=RESERVED), claim=replace(CLAIM, claimed_ms=10**7)), Park(30.0, RESERVED.waiting, [])
    ),
    "... and a young one when it was told to": (
        outcome(failed(held_back=RESERVED), claim=replace(CLAIM, claimed_ms=1000)), Park(2.0, RESERVED.waiting, [])
    ),
    "beside a paused route a failure waits for it": (
        outcome(failed(BROKEN, withheld=PAUSED)),
        park(5.0, WaitReason.PAUSED_ROUTE, f"provider google is paused; the others: {SAID}", "provider:google"),
    ),
    "no route can, and none was passed over": (
        outcome(failed(UNFIT, TOO_LONG)), dead(DeadReason.REJECTED, "context_length: too long")
    ),
    "one that was passed over may be able to": (
        outcome(failed(UNFIT, passed_over=60.0, withheld_subjects=("provider:google",))),
        park(60.0, WaitReason.ABLE_ROUTE, "not_supported: no tools", "provider:google"),
    ),
    "... and is not asked for again and again": (
        outcome(failed(UNFIT, passed_over=0.1)), park(10.0, WaitReason.ABLE_ROUTE, "not_supported: no tools")
    ),
    "one that is too slow now may be able to": (
        outcome(failed(UNFIT), SLOW), park(10.0, WaitReason.ABLE_ROUTE, "not_supported: no tools")
    ),
    "... but not without attempts": (
        outcome(failed(UNFIT, passed_over=60.0), attempts_left=0),
        dead(DeadReason.REJECTED, "not_supported: no tools"),
    ),
    "one route that cannot and one that fails: tried again": (
        outcome(failed(UNFIT, BROKEN)), Retry(0.0, SAID, [])
    ),
    "none is open, to anybody: it keeps its place": (outcome(failed(opens_in=30.0)), Released([])),
    "none is open to a job that is choosy": (
        outcome(failed(opens_in=30.0, closed="a/m: open", withheld_subjects=("route:a/m",)), PICKY),
        park(30.5, WaitReason.ROUTE, "a/m: open", "route:a/m"),
    ),
    "... which does not ask again at once": (
        outcome(failed(opens_in=1.0, closed="a/m: open"), PICKY), park(10.5, WaitReason.ROUTE, "a/m: open")
    ),
    "none is open to this tenant": (
        outcome(failed(opens_in=30.0, others_may=True, closed="a/m: key")), park(30.5, WaitReason.ROUTE, "a/m: key")
    ),
    "a plan that asks no breaker keeps no place": (
        outcome(failed(opens_in=30.0, closed="a/m"), replace(PLAN, order=BYPASS)), park(30.5, WaitReason.ROUTE, "a/m")
    ),
    "a failure that burned nothing waits for the opening, in turn": (
        outcome(failed(BROKEN, opens_in=1.0)), park(1.5, WaitReason.ROUTE, SAID, in_turn=True)
    ),
    "... at its tail where others may": (
        outcome(failed(BROKEN, opens_in=1.0, others_may=True)), park(1.5, WaitReason.ROUTE, SAID)
    ),
    "a failure that burned is tried again": (
        outcome(failed(BROKEN, opens_in=1.0), burned=True), Retry(0.0, SAID, [])
    ),
    "without attempts it does not wait for an opening": (
        outcome(failed(BROKEN, opens_in=1.0), attempts_left=0),
        dead(DeadReason.EXHAUSTED, f"6 attempts; the last: {SAID}"),
    ),
    "the last execution is the end": (
        outcome(failed(BROKEN), claim=replace(CLAIM, executions=2)),
        dead(DeadReason.EXHAUSTED, f"3 executions; the last: {SAID}"),
    ),
    "no route may be tried": (outcome(failed()), Retry(0.0, "no route may be tried", [])),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_becomes_of_a_job_without_an_answer(name: str) -> None:
    found, expected = OUTCOMES[name]
    assert found == expected


@pytest.mark.parametrize(
    ("executions", "jitter", "seconds"), [(0, 1.0, 2.0), (1, 1.0, 4.0), (1, 0.5, 2.0), (40, 1.0, 100.0)]
)
def test_the_backoff_doubles_up_to_its_end(executions: int, jitter: float, seconds: float) -> None:
    policy = POLICY.model_copy(update={"executions": 100})
    claim = replace(CLAIM, executions=executions)
    assert outcome_of(claim, policy, failed(BROKEN), PLAN, Spend(3), lambda: jitter) == Retry(seconds, SAID, [])


@pytest.mark.parametrize(("excused", "seconds"), [(0, 5.0), (1, 10.0), (4, 80.0), (5, 150.0), (40, 150.0)])
def test_each_vain_wait_beside_a_paused_route_is_longer(excused: int, seconds: float) -> None:
    attempt = Attempt(execution=1, route="a/m", tier="hot", outcome="server_error")
    before = [attempt.model_copy(update={"excused": True})] * excused
    spend = Spend(3, trail=[*before, attempt], known=excused)
    found = outcome_of(CLAIM, POLICY, failed(BROKEN, withheld=PAUSED), PLAN, spend, lambda: 0.0)
    assert isinstance(found, Park)
    assert found.wait_seconds == seconds
    assert [entry.excused for entry in found.trail if isinstance(entry, Attempt)] == [True] * (excused + 1)


def rejected(*codes: RejectedFor, left_out: str = "") -> Plan:
    return Plan("listed", rejected=tuple(Rejected(ROUTE, code, "why") for code in codes), left_out=left_out)


NO_ROUTE = "no route can do what this job needs: a/m: why"


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (rejected(RejectedFor.LACKS_CAPABILITY), dead(DeadReason.REJECTED, NO_ROUTE)),
        (rejected(RejectedFor.OVER_COST), dead(DeadReason.OVER_BUDGET, NO_ROUTE)),
        (rejected(RejectedFor.NO_PRICE), dead(DeadReason.OVER_BUDGET, NO_ROUTE)),
        (
            rejected(RejectedFor.CONTEXT_WINDOW, RejectedFor.OVER_COST),
            dead(DeadReason.OVER_BUDGET, f"{NO_ROUTE}; a/m: why"),
        ),
        (rejected(RejectedFor.OVER_BUDGET), park(60.0, WaitReason.BUDGET, "a/m: why")),  # a cap of $0
        (rejected(RejectedFor.OVER_BUDGET, RejectedFor.OVER_COST), park(60.0, WaitReason.BUDGET, "a/m: why; a/m: why")),
        (rejected(RejectedFor.TOO_SLOW), park(10.0, WaitReason.SLOW_ROUTE, "a/m: why")),
        (
            rejected(RejectedFor.OVER_COST, RejectedFor.TOO_SLOW),
            park(10.0, WaitReason.SLOW_ROUTE, "a/m: why; a/m: why"),
        ),
        (
            rejected(RejectedFor.OVER_COST, left_out="a/m: A_KEY is not set"),
            park(10.0, WaitReason.PINNED_ROUTE, "a/m: A_KEY is not set"),
        ),
    ],
)
def test_without_a_candidate(plan: Plan, expected: Outcome) -> None:
    assert without_candidate(POLICY, plan, [], lambda: 0.0) == expected


OFF = "; ENABLE_COLD_QUEUE is off, so it does not wait"
DONE = Done(JobResult(job_id="j", status=JobStatus.DONE), 100)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Retry(9, "all down", []), dead(DeadReason.EXHAUSTED, "all down" + OFF)),
        (Released([]), dead(DeadReason.EXHAUSTED, "no route is open" + OFF)),
        (park(9, WaitReason.ROUTE, "a/m"), dead(DeadReason.EXHAUSTED, "an open route (a/m)" + OFF)),
        (Park(9, BUDGET.waiting, []), dead(DeadReason.OVER_BUDGET, f"{BUDGET.waiting}{OFF}")),
        (Park(9, RESERVED.waiting, []), dead(DeadReason.OVER_BUDGET, f"{RESERVED.waiting}{OFF}")),
        (dead(DeadReason.REFUSED, "no"), dead(DeadReason.REFUSED, "no")),
        (DONE, DONE),
    ],
    ids=lambda each: type(each).__name__,
)
def test_without_the_cold_queue_no_job_waits(found: Outcome, expected: Outcome) -> None:
    assert without_cold_queue(found, POLICY) == expected
