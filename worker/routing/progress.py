"""How far an execution has come through its candidates: what failed, what let nothing through, what money forbids."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from producer.trail import RejectedFor
from worker.errors.catalog import CONTEXT, Failure
from worker.money.ledger import Refusal
from worker.routes.route import Route
from worker.routing.answer import HeldBack
from worker.routing.execution_context import JobContext

_MONEY = (RejectedFor.OVER_BUDGET, RejectedFor.NO_LEDGER)


@dataclass
class Progress:
    """`failures`: the last one of each route that was called, in order. `closed`: why each route that let nothing through
    did not. `too_small`: the last route that found the context too long. `held_back`: the ledger let no call go out. `local`: the
    trouble of this machine that kept a route from being called."""

    failures: dict[str, Failure] = field(default_factory=dict)
    closed: dict[str, tuple[RejectedFor, str]] = field(default_factory=dict)
    too_small: Route | None = None
    held_back: HeldBack | None = None
    local: str = ""
    refused_micros: float = math.inf  # calls that may cost as much are not asked for any more

    def failed(self, route: Route, failure: Failure) -> None:
        self.failures[route.name] = failure
        if failure.code == CONTEXT.code:  # a limit by the minute, or of bytes, says nothing of other routes' windows
            self.too_small = route

    def closed_off(
        self, route: Route, code: RejectedFor, why: str, refusal: Refusal | None = None, local: str = ""
    ) -> None:
        self.closed[route.name] = (code, why)
        self.local = local or self.local
        if refusal is None or not refusal.holds_back:
            return
        self.held_back = HeldBack(refusal.waiting, refusal.seconds)
        if refusal.asked and not refusal.of.startswith("provider:"):
            self.refused_micros = refusal.asked

    def too_expensive(self, context: JobContext, route: Route) -> tuple[RejectedFor, str] | None:
        """Why the route is not asked for, after the ledger refused a call that would cost no more."""
        if self.held_back is None or context.plan.estimates.get(route.name, 0) < self.refused_micros:
            return None
        return RejectedFor.OVER_BUDGET, str(self.held_back.waiting)

    @property
    def may_open(self) -> list[str]:
        """Routes that let nothing through, and that a time will open: not for want of money, not disabled."""
        never = (*_MONEY, RejectedFor.DISABLED)
        return [name for name, (code, _) in self.closed.items() if code not in never]

    @property
    def closed_in_words(self) -> str:
        return "; ".join(f"{name}: {why}" for name, (code, why) in self.closed.items() if code not in _MONEY)
