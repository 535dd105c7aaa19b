"""A plan: a job's candidates in the order to try them, why the other routes are none, and what money demands of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

from producer.policy import Capability
from producer.trail import Planned, RejectedFor
from worker.money.caps import Ceiling, uncapped
from worker.routes.prices import dollars
from worker.routes.route import Route

BYPASS = "bypass"  # the order of a plan that asks no breaker


@dataclass(frozen=True)
class CostPolicy:
    """What money demands of a plan. `cap`: micro-dollars that the job may cost. `output_tokens`: the longest answer, where the
    job names none. `cheapest`: the cheapest route first, for the reason in `why`. `avoided`: providers whose routes come last.
    `ceiling`: the hard caps that concern calls to a provider."""

    cap: int | None = None
    output_tokens: int | None = None
    cheapest: bool = False
    why: str = ""
    avoided: frozenset[str] = frozenset()
    ceiling: Callable[[str], Ceiling] = uncapped


FREE = CostPolicy()


@dataclass(frozen=True)
class Rejected:
    route: Route
    code: RejectedFor
    reason: str


@dataclass(frozen=True)
class Plan:
    """Candidates in the order to try them; every route of the map is either one of them or rejected.

    By a candidate's name: `lacks`, the capabilities that the policy lets it lack; `estimates`, micro-dollars that a call may
    cost where its price is known; `p95_ms`. `cap`: micro-dollars that the whole job may cost. `tokens`: of a call, estimated.
    """

    order: str
    candidates: tuple[Route, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    lacks: Mapping[str, Set[Capability]] = field(default_factory=dict)
    estimates: Mapping[str, int] = field(default_factory=dict)
    p95_ms: Mapping[str, int] = field(default_factory=dict)
    cap: int | None = None
    tokens: int = 0
    listed: Mapping[str, int] = field(default_factory=dict)  # a route's place in the map
    why: str = ""  # it is to cost less
    reordered: bool = False  # ... and its routes are in another order for it
    bounded: bool = False  # the length of its answers is
    output_tokens: int | None = None  # set: answers are bounded by it, as the job names no limit and a cap has to hold
    baseline: Route | None = None
    prompt_caching: bool = True
    left_out: str = ""  # the routes of its pin that are left out of the map now, and why: the job waits for them

    def told(self, execution: int, spent: int) -> Planned:
        """For the trail. `spent`: micro-dollars of the attempts before it."""
        return Planned(
            execution=execution,
            order=self.order,
            candidates=tuple(route.name for route in self.candidates),
            baseline=self.baseline.name if self.baseline else None,
            max_cost_usd=None if self.cap is None else dollars(self.cap),
            spent_usd=dollars(spent),
            estimates_usd=self._told_estimates(),
            p95_ms=dict(self.p95_ms),
            reduced=self.why or None,
        )

    def _told_estimates(self) -> dict[str, float]:
        """Where something depended on them."""
        if self.cap is None and self.order != "cost":
            return {}
        return {name: dollars(micros) for name, micros in self.estimates.items()}


def too_expensive(estimate: int, spent: int, cap: int) -> str:
    """Why a call may cost more than is left of the cap, in words; "" if it cannot. Micro-dollars."""
    if spent + estimate <= cap:
        return ""
    before = f" after ${dollars(spent):.6f} spent" if spent else ""
    return f"about ${dollars(estimate):.6f}{before}, the cap is ${dollars(cap):.6f}"
