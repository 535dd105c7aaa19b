"""The ledger's side of each call: money and a place on the route are reserved before it, its row is closed after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from producer.trail import Attempt
from worker.errors.catalog import Failure
from worker.errors.classify import Broken, Reply
from worker.events import Event, EventKind, Hooks
from worker.money.budget_state import BudgetState
from worker.money.ledger import AWAY, BUSY_SECONDS, Ledger, Refusal, RefusalReason, Reservation
from worker.money.rate_limits import RateLimits
from worker.routes.names import canonical
from worker.routes.prices import micros
from worker.routes.route import Route
from worker.routing.attempt import RouteAttempt
from worker.routing.execution_context import JobContext, Spend
from worker.routing.plan import BYPASS

LONGEST_WAIT_SECONDS = 5.0  # for a place on a route; then another route, or the queue


class Accounting:
    """One worker's."""

    def __init__(self, ledger: Ledger, budget_state: Callable[[], BudgetState], hooks: Hooks | None = None) -> None:
        self._ledger, self._budget_state, self._limits = ledger, budget_state, RateLimits(ledger)
        self._hooks = hooks or Hooks()

    async def reserve(self, attempt: RouteAttempt, context: JobContext, spend: Spend) -> Refusal | None:
        """For one call, which may go out if this is None; its row is `attempt.reservation`. A limit's refusal says for how long
        the route may rest."""
        attempt.reservation = reservation = self._reservation(attempt, context, spend)
        if unplanned := _unplanned(reservation, context):
            return unplanned
        patience = min(LONGEST_WAIT_SECONDS, context.seconds_left() / 2)
        try:
            refusal = await self._limits.reserve(reservation, patience)
            if refusal is None and not await self._ledger.dispatch(reservation):
                self.release(reservation)
                return AWAY
        except asyncio.CancelledError:
            self.release(reservation)  # it may have been granted
            raise
        return refusal

    def _reservation(self, attempt: RouteAttempt, context: JobContext, spend: Spend) -> Reservation:
        route, own = attempt.route, any(key.tenant for key in attempt.keys)
        bypass = context.plan.order == BYPASS  # no cap holds, and no limit
        spend.reservations += 1
        return Reservation(
            id=f"{context.owner.lease}:{spend.reservations}",
            owner=context.owner,
            provider=canonical(route.entry.provider),
            route=route.name,
            model=route.model,
            price=route.price_version,
            micros=context.plan.estimates.get(route.name, 0),
            tokens=context.plan.tokens,
            caps={} if bypass else self._budget_state().terms(context.owner, None if own else route.entry.provider),
            limits=() if bypass or own else self._limits.of(route, self._budget_state().budgets),
            own=own,
        )

    def release(self, reservation: Reservation) -> None:
        """No call went out."""
        self._ledger.close(reservation, "released")

    def settle(self, reservation: Reservation, attempt: Attempt, failure: Failure | None) -> None:
        """The call has ended as the trail tells it."""
        self._limits.free(reservation.route)
        if self._hooks.wants(EventKind.SPENT):
            owner = reservation.owner
            spent: dict[str, object] = {
                "route": reservation.route,
                "provider": reservation.provider,
                "tenant": owner.tenant,
                "feature": owner.feature,
            }
            spent |= {"cost_usd": attempt.cost_usd, "may_cost_usd": attempt.may_cost_usd}
            self._hooks.emit(Event(EventKind.SPENT, owner.job, spent))
        prompt, completion = attempt.prompt_tokens, attempt.completion_tokens
        priced = not reservation.price or attempt.cost_usd is not None
        if prompt is not None and completion is not None and priced:
            self._ledger.close(reservation, "settled", micros(attempt.cost_usd), prompt, completion)
        elif failure is None or failure.may_be_billed:
            self._ledger.close(reservation, "ambiguous", micros(attempt.may_cost_usd))
        else:
            self.release(reservation)

    def heed(self, route: Route, answer: Reply | Broken | None) -> float:
        """Seconds for which the provider's headers want no further call on the route."""
        return self._limits.hear(route, answer.headers, time.time()) if isinstance(answer, Reply) else 0.0


def _unplanned(reservation: Reservation, context: JobContext) -> Refusal | None:
    """For a hard cap that the plan knew nothing of, as it was set a moment ago: the job is planned anew."""
    in_dollars = next((scope for scope, (hard, _, _) in reservation.caps.items() if hard >= 0), None)
    known = context.plan.bounded and (in_dollars is None or reservation.route in context.plan.estimates)
    return None if known or not reservation.capped else Refusal(RefusalReason.BUSY, in_dollars or "", BUSY_SECONDS)
