"""What a walk over routes has to do with the books: money and a place before each call, its row's end after it."""

from __future__ import annotations

import asyncio
import time

from producer.trail import Attempt
from worker.errors.catalog import Failure
from worker.errors.classify import Broken, Reply
from worker.money.budget_state import Allowances
from worker.money.ledger import AWAY, BUSY_SECONDS, Ledger, Refusal, Reservation
from worker.money.rate_limits import Limits
from worker.routes.names import canonical
from worker.routes.prices import micros
from worker.routes.route import Route
from worker.routing.execution_context import Visit, Walk
from worker.routing.plan import BYPASS

LONGEST_WAIT_SECONDS = 5.0  # for a place on a route; then another route, or the queue


class Bookkeeper:
    """One worker's."""

    def __init__(self, ledger: Ledger, allowances: Allowances) -> None:
        self._ledger, self._allowances, self._limits = ledger, allowances, Limits(ledger)

    async def reserve(self, visit: Visit, walk: Walk) -> Refusal | None:
        """For one call, which may go out if this is None; its row is `visit.reservation`. A limit's refusal says for how long
        the route may rest."""
        visit.reservation = reservation = self._reservation(visit, walk)
        if unplanned := _unplanned(reservation, walk):
            return unplanned
        patience = min(LONGEST_WAIT_SECONDS, walk.seconds_left() / 2)
        try:
            refusal = await self._limits.reserve(reservation, patience)
            if refusal is None and not await self._ledger.dispatch(reservation):
                self.release(reservation)
                return AWAY
        except asyncio.CancelledError:
            self.release(reservation)  # it may have been granted
            raise
        return refusal

    def _reservation(self, visit: Visit, walk: Walk) -> Reservation:
        route, own = visit.route, any(key.tenant for key in visit.keys)
        bypass = walk.plan.order == BYPASS  # no cap holds, and no limit
        walk.reservations += 1
        return Reservation(
            id=f"{walk.owner.lease}:{walk.reservations}",
            owner=walk.owner,
            provider=canonical(route.entry.provider),
            route=route.name,
            model=route.model,
            price=route.price_version,
            micros=walk.plan.estimates.get(route.name, 0),
            tokens=walk.plan.tokens,
            caps={} if bypass else self._allowances.terms(walk.owner, None if own else route.entry.provider),
            limits=() if bypass or own else self._limits.of(route, self._allowances.budgets),
            own=own,
        )

    def release(self, reservation: Reservation) -> None:
        """No call went out."""
        self._ledger.close(reservation, "released")

    def settle(self, reservation: Reservation, attempt: Attempt, failure: Failure | None) -> None:
        """The call has ended as the trail tells it."""
        self._limits.free(reservation.route)
        prompt, completion = attempt.prompt_tokens, attempt.completion_tokens
        if prompt is not None and completion is not None:
            self._ledger.close(reservation, "settled", micros(attempt.cost_usd), prompt, completion)
        elif attempt.ambiguous or failure is None or failure.status == 200:
            self._ledger.close(reservation, "ambiguous", micros(attempt.may_cost_usd))
        else:
            self.release(reservation)

    def heed(self, route: Route, answer: Reply | Broken | None) -> float:
        """Seconds for which the provider's headers want no further call on the route."""
        return self._limits.hear(route, answer.headers, time.time()) if isinstance(answer, Reply) else 0.0


def _unplanned(reservation: Reservation, walk: Walk) -> Refusal | None:
    """For a hard cap that the plan knew nothing of, as it was set a moment ago: the job is planned anew."""
    in_dollars = next((scope for scope, (hard, _, _) in reservation.caps.items() if hard >= 0), None)
    known = walk.plan.bounded and (in_dollars is None or reservation.route in walk.plan.estimates)
    return None if known or not reservation.capped else Refusal("busy", in_dollars or "", BUSY_SECONDS)
