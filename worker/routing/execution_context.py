"""One execution of a job: what never changes while it runs (`JobContext`), and what it uses up (`Spend`)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from producer.job import ChatBody
from producer.trail import Attempt, RejectedFor, Rejection, TrailEntry
from worker.errors.catalog import Failure
from worker.money.caps import NOBODY, Owner
from worker.routes.prices import dollars, micros_of_tokens
from worker.routes.route import Route
from worker.routes.usage import read_usage
from worker.routing.attempt import RouteAttempt
from worker.routing.call_time import call_seconds
from worker.routing.live_text import LiveText
from worker.routing.plan import Plan, too_expensive

SHORTEST_ATTEMPT_SECONDS = 0.05


@dataclass(frozen=True)
class JobContext:
    """What one execution goes by. `ordinal` counts the job's executions from 1. `deadline` is on the monotonic clock, for all
    attempts together; `seconds`: how far away it was at the begin. `first_token_seconds`: the policy's limit; set, answers are
    streamed. `failover_on_refusal`: a job that one provider refused may go to other routes. `owner`: who pays, as the ledger's
    rows name it. `live`: gets the answer's text while it comes, so answers are streamed."""

    job_id: str
    ordinal: int
    body: ChatBody
    idempotency_key: str
    deadline: float
    plan: Plan = field(default_factory=lambda: Plan("listed"))
    owner: Owner = NOBODY
    first_token_seconds: float | None = None
    failover_on_refusal: bool = False
    seconds: float = math.inf
    live: LiveText | None = None

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def first_token(self, route: Route) -> float | None:
        """The shorter of the route's and the policy's limit; None: the answer is not streamed."""
        limits = (route.entry.stream_timeout_seconds, self.first_token_seconds, self.seconds if self.live else None)
        return min((limit for limit in limits if limit is not None), default=None)

    def seconds_for(self, attempt: RouteAttempt) -> float:
        """Seconds that one call may take (call_time.py)."""
        others = [other.entry for other in attempt.others]
        seconds = call_seconds(self.seconds_left(), self.seconds, attempt.route.entry, others)
        return max(SHORTEST_ATTEMPT_SECONDS, seconds)


@dataclass
class Spend:
    """What one execution uses up, and the trail that it writes.

    `attempts_left`: the job's hard cap on calls, which probes do not use up; `attempts`: all calls of this execution.
    `micros`: micro-dollars that the job cost so far, or may have cost. `known`: entries of the trail before this
    execution's first call. `burned`: a call failed that was no probe, on a route that did not name the time to come back.
    `reservations`: rows of the ledger that were asked for.
    """

    attempts_left: int
    micros: int = 0
    trail: list[TrailEntry] = field(default_factory=list)
    known: int = 0
    attempts: int = 0
    burned: bool = False
    reservations: int = 0

    def hindrance(self, context: JobContext, route: Route, too_small: Route | None) -> tuple[RejectedFor, str] | None:
        """Why the route is not tried, by what is left. `too_small`: the last route that found the context too long."""
        if too_small is not None and not _may_be_larger(route, too_small):
            return RejectedFor.CONTEXT_WINDOW, "context window too small"
        if self.attempts_left <= 0:
            return RejectedFor.NO_ATTEMPTS, "no attempts left"
        if context.seconds_left() < SHORTEST_ATTEMPT_SECONDS:
            return RejectedFor.NO_TIME, "no time left"
        if why := self.over_cost(context.plan, route):
            return RejectedFor.OVER_COST, why
        return None

    def over_cost(self, plan: Plan, route: Route) -> str:
        """Why one more call on the route may cost more than the job may; "" if it cannot."""
        estimate = plan.estimates.get(route.name)
        return "" if plan.cap is None or estimate is None else too_expensive(estimate, self.micros, plan.cap)

    def reject(self, context: JobContext, route: Route, code: RejectedFor, why: str) -> None:
        self.trail.append(rejection(context.ordinal, route, code, why))

    def record(
        self,
        context: JobContext,
        attempt: RouteAttempt,
        failure: Failure | None,
        *,
        usage: Mapping[str, Any] | None = None,
        note: str = "",
        first_token_at: float | None = None,
    ) -> Attempt:
        """Write a call that ended into the trail, and count what it cost or may have cost. `first_token_at`: when the first token
        of a streamed answer came, on the monotonic clock."""
        route, ms = attempt.route, round((time.monotonic() - attempt.started) * 1000)
        read = read_usage(usage) if usage else None
        cost = micros_of_tokens(route.price, read) if route.price and read else None
        ambiguous = failure.ambiguous if failure else False
        unsaid = failure is None or failure.may_be_billed  # an answer, of a kind, that may not say what it cost
        may_cost = context.plan.estimates.get(route.name) if unsaid and cost is None else None
        self.micros += cost or may_cost or 0
        entry = Attempt(
            execution=context.ordinal,
            route=route.name,
            tier=route.tier,
            outcome=failure.code if failure else "ok",
            status=failure.status if failure else None,
            at_ms=round(time.time() * 1000) - ms,
            ms=ms,
            first_token_ms=None if first_token_at is None else round((first_token_at - attempt.started) * 1000),
            ambiguous=ambiguous,
            probe=attempt.probe,
            breaker=attempt.breaker,
            key=attempt.key.source if attempt.key else None,
            dropped=(*attempt.dropped, *attempt.unsaid),
            prompt_tokens=read.prompt if read else None,
            completion_tokens=read.completion if read else None,
            cost_usd=None if cost is None else dollars(cost),
            may_cost_usd=None if may_cost is None else dollars(may_cost),
            detail=(failure.detail if failure else note) or None,
        )
        self.trail.append(entry)
        return entry


def _may_be_larger(route: Route, than: Route) -> bool:
    """Unknown windows get the benefit of the doubt: a refusal for length is quick and not billed."""
    window, small = route.entry.context_window, than.entry.context_window
    return window is None or small is None or window > small


def rejection(execution: int, route: Route, code: RejectedFor, why: str) -> Rejection:
    return Rejection(execution=execution, route=route.name, tier=route.tier, rejected=why, code=code)
