"""One execution's way over its candidates, and its stay on one of them: what is left to spend, and what was told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from producer.job import ChatBody
from producer.trail import Attempt, RejectedFor, Rejection, TrailEntry
from worker.breakers.local import Admission
from worker.errors.catalog import DROPPABLE, RENAMES, Breaker, Failure
from worker.money.caps import NOBODY, Owner
from worker.money.ledger import Refusal, Reservation
from worker.routes.api_keys import Key
from worker.routes.prices import billed_micros, count, dollars
from worker.routes.route import Route
from worker.routing.plan import Plan, too_expensive

SHORTEST_ATTEMPT_SECONDS = 0.05
RETRIES_BEFORE_ANOTHER = 1  # of a failing route, while another one is open


@dataclass
class Walk:
    """One execution's way over its candidates. `deadline` in the loop's time; `ordinal` counts executions from 1.

    `attempts` are all calls made; `attempts_left` is the job's hard cap, which probes do not use up. `burned`: an
    attempt failed that was no probe, on a route that did not name the time to come back. `first_token_seconds`: the
    policy's limit; set, answers are streamed. `failover_on_refusal`: a refused job may go to other routes. `known`: entries
    of the trail before the first attempt of this execution.

    `owner`: whose books its calls stand in; `reservations` were asked for so far.
    `spent`: micro-dollars that the job may have cost so far, those of ambiguous attempts among them.
    """

    job_id: str
    ordinal: int
    body: ChatBody
    idempotency_key: str
    deadline: float
    attempts_left: int
    trail: list[TrailEntry] = field(default_factory=list)
    attempts: int = 0
    burned: bool = False
    first_token_seconds: float | None = None
    failover_on_refusal: bool = False
    known: int = 0
    tenant: str = ""
    plan: Plan = field(default_factory=lambda: Plan("listed"))
    spent: int = 0
    owner: Owner = NOBODY
    reservations: int = 0

    def seconds_left(self) -> float:
        return self.deadline - asyncio.get_running_loop().time()

    def hindrance(self, route: Route, too_small: Route | None) -> tuple[RejectedFor, str] | None:
        """Why the route is not tried now, by what is left to spend. `too_small`: the last one that found the context too long."""
        if too_small is not None and not _may_be_larger(route, too_small):
            return RejectedFor.CONTEXT_WINDOW, "context window too small"
        if self.attempts_left <= 0:
            return RejectedFor.NO_ATTEMPTS, "no attempts left"
        if self.seconds_left() < SHORTEST_ATTEMPT_SECONDS:
            return RejectedFor.NO_TIME, "no time left"
        if why := self.over_cost(route):
            return RejectedFor.OVER_COST, why
        return None

    def first_token(self, route: Route) -> float | None:
        """The shorter of the route's and the policy's limit; None: the answer is not streamed."""
        limits = (route.entry.stream_timeout_seconds, self.first_token_seconds)
        return min((limit for limit in limits if limit is not None), default=None)

    def share(self, visit: Visit) -> float:
        """Seconds that one attempt may take: the route's limit, and never more than half of what is left while another
        route could still answer."""
        left = self.seconds_left()
        fair = left / 2 if visit.another_waits else left
        return max(SHORTEST_ATTEMPT_SECONDS, min(visit.route.entry.timeout_seconds, fair))

    def tell(
        self,
        call: Call,
        failure: Failure | None,
        *,
        usage: Mapping[str, Any] | None = None,
        note: str = "",
    ) -> Attempt:
        """An attempt that ended, into the trail, and what it cost or may have."""
        route, ms = call.visit.route, round((time.monotonic() - call.started) * 1000)
        price = route.price if usage else None
        cost = billed_micros(price, usage) if price and usage else None
        ambiguous = failure.ambiguous if failure else False
        unsaid = failure is None or failure.status == 200  # an answer, of a kind, that may not say what it cost
        may_cost = self.plan.estimates.get(route.name) if (ambiguous or unsaid) and cost is None else None
        self.spent += cost or may_cost or 0
        attempt = Attempt(
            execution=self.ordinal,
            route=route.name,
            tier=route.tier,
            outcome=failure.code if failure else "ok",
            status=failure.status if failure else None,
            at_ms=round(time.time() * 1000) - ms,
            ms=ms,
            ambiguous=ambiguous,
            probe=call.probe,
            breaker=call.breaker,
            key=call.key.source if call.key else None,
            dropped=(*call.visit.dropped, *call.dropped),
            prompt_tokens=count(usage or {}, "prompt_tokens"),
            completion_tokens=count(usage or {}, "completion_tokens"),
            cost_usd=None if cost is None else dollars(cost),
            may_cost_usd=None if may_cost is None else dollars(may_cost),
            detail=(failure.detail if failure else note) or None,
        )
        self.trail.append(attempt)
        return attempt

    def over_cost(self, route: Route) -> str:
        """Why one more call on the route may cost more than the job may; "" if it cannot."""
        estimate = self.plan.estimates.get(route.name)
        cap = self.plan.cap
        return "" if cap is None or estimate is None else too_expensive(estimate, self.spent, cap)

    def reject(self, route: Route, code: RejectedFor, why: str) -> None:
        self.trail.append(rejection(self.ordinal, route, code, why))


def _may_be_larger(route: Route, than: Route) -> bool:
    """Unknown windows get the benefit of the doubt: a refusal for length is quick and not billed."""
    window, small = route.entry.context_window, than.entry.context_window
    return window is None or small is None or window > small


def rejection(execution: int, route: Route, code: RejectedFor, why: str) -> Rejection:
    return Rejection(execution=execution, route=route.name, tier=route.tier, rejected=why, code=code)


@dataclass(frozen=True)
class Call:
    """One attempt under way. `breaker`: how it stood when it let the attempt through. `dropped`: what the dialect could not say
    as the body has it."""

    visit: Visit
    key: Key | None
    probe: bool
    breaker: str
    started: float = field(default_factory=time.monotonic)
    dropped: list[str] = field(default_factory=list)


@dataclass
class Visit:
    """One execution's stay on one route. `body`: what the route is sent, without what it does not know (`dropped`)."""

    route: Route
    body: Mapping[str, Any]
    another_waits: bool  # a later candidate could answer now
    keys: Sequence[Key] = ()
    dropped: tuple[str, ...] = ()
    retries: int = 0
    refusal: Refusal | None = None  # of money or a place for the call
    reservation: Reservation | None = None  # the call's
    admission: Admission | None = None  # of an attempt whose request was corrected, for the next one
    changed: set[str] = field(default_factory=set)

    def retry(self, failure: Failure) -> bool:
        """Whether the route is asked again after such a failure."""
        most = min(failure.retries, self.route.entry.retries)
        if self.another_waits and failure.breaker is Breaker.COUNT:
            most = min(most, RETRIES_BEFORE_ANOTHER)
        self.retries += 1
        return self.retries <= most

    def without(self, parameter: str, instead: str) -> str:
        """Send `parameter` by its other name, or not at all, once; what was done, or "" if nothing can be."""
        if parameter not in self.body or parameter in self.changed:
            return ""
        self.changed.add(parameter)
        rest = {name: value for name, value in self.body.items() if name != parameter}
        if instead and instead == RENAMES.get(parameter) and instead not in self.body:
            self.changed.add(instead)
            self.body = {**rest, instead: self.body[parameter]}
            self.dropped = (*self.dropped, f"{parameter} as {instead}")
            return f"sent {parameter} as {instead}"
        if parameter not in DROPPABLE:
            return ""
        self.body = rest
        self.dropped = (*self.dropped, parameter)
        return f"dropped {parameter}"
