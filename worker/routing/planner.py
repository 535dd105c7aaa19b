"""Job, policies, routes and what is known of them -> ordered candidates, each kept or rejected before any network call.

What changes from one moment to the next (breakers, rests, kill switches, attempts and time left) is asked when the router
comes to a route; everything else is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

from producer.job import ChatBody, LLMJob
from producer.policy import Capability
from producer.trail import RejectedFor
from worker.money.caps import UNCAPPED, micros_of
from worker.routes.parameters import capabilities_of, essential
from worker.routes.policy import Order, Routing, RoutingPolicy
from worker.routes.prices import Price, cost_micros, dollars
from worker.routes.route import Route, Routes
from worker.routes.tokens import estimated, longest_answer
from worker.routing.plan import BYPASS, FREE, CostPolicy, Plan, Rejected, too_expensive

ESTIMATE_MARGIN = 1.25  # tokens are estimated: only what is too long by more than this is kept from a route
EXPLORES = 50  # one job in so many starts at a route whose latency is not known, where latency decides

PASSES = frozenset({RejectedFor.TOO_SLOW})  # another time it may be taken


class Planner:
    """Of one configuration. `p95_ms`: routes' latency lately by name, where enough calls were made; its owner keeps it up to
    date."""

    def __init__(self, routes: Routes, routing: Routing, p95_ms: Mapping[str, int]) -> None:
        self._routes, self._routing, self._p95_ms = routes, routing, p95_ms
        self._places = {route.name: place for place, route in enumerate(routes.routes)}

    def plan(
        self,
        job_id: str,
        job: LLMJob,
        body: ChatBody,
        requires: tuple[Capability, ...] = (),
        spent: int = 0,
        restraint: CostPolicy = FREE,
    ) -> Plan:
        """`body`: what is to be sent, which may be shorter than the job's. `spent`: micro-dollars that the job has cost."""
        policy = self._routing.of(job.job_type)
        if job.route is not None:
            policy = policy.model_copy(update={"pin": (job.route,)})
        reordered = restraint.cheapest and not policy.pin and policy.order != "cost"
        if reordered:
            policy = policy.model_copy(update={"order": "cost"})
        baseline = self._named(policy.baseline) or self._routes.routes[0]
        if self._routes.bypass:
            return self._bypassed(baseline, policy)
        asked = _Asked(job_id, body, policy, set(requires) | capabilities_of(body), spent, self._p95_ms, restraint)
        kept, rejected = list[Route](), list[Rejected]()
        for route in self._routes.routes:
            if found := asked.hindrance(route):
                rejected.append(Rejected(route, *found))
            else:
                kept.append(route)
        lacking = {route.name: lacks for route in kept if (lacks := asked.lacking.get(route.name))}
        ordered = self._ordered(kept, asked, lacking)
        bound = asked.bound(ordered)
        return Plan(
            order="pinned" if policy.pin else policy.order,
            candidates=tuple(ordered),
            rejected=tuple(rejected),
            lacks=lacking,
            estimates={route.name: cost for route in ordered if (cost := asked.estimates.get(route.name)) is not None},
            p95_ms={route.name: self._p95_ms[route.name] for route in ordered if route.name in self._p95_ms},
            cap=asked.cap,
            tokens=asked.tokens,
            listed=self._places,
            why=restraint.why,
            reordered=reordered,
            bounded=asked.named_output is not None or bound is not None,
            output_tokens=bound,
            baseline=baseline,
            prompt_caching=policy.prompt_caching,
            left_out="" if ordered else self._left_out(policy),
        )

    def _bypassed(self, baseline: Route, policy: RoutingPolicy) -> Plan:
        """The first route alone, whatever is known of it."""
        first, *others = self._routes.routes
        passed = (Rejected(route, RejectedFor.BYPASS, "BYPASS_ROUTER is on") for route in others)
        return Plan(BYPASS, (first,), tuple(passed), baseline=baseline, prompt_caching=policy.prompt_caching)

    def _left_out(self, policy: RoutingPolicy) -> str:
        """Why the routes that a job type is pinned to cannot be used now."""
        return "; ".join(f"{out.name}: {out.why}" for out in self._routes.left_out if out.name in policy.pinned)

    def _named(self, name: str | None) -> Route | None:
        return next((route for route in self._routes.routes if route.name == name), None) if name else None

    def _ordered(self, routes: list[Route], asked: _Asked, lacking: Collection[str]) -> list[Route]:
        """By the policy's order. A route that takes this job as a canary goes first of all; one that lacks something comes
        after those that can give a whole answer, and one of a provider whose month is at its end last."""
        policy, avoided = asked.policy, asked.restraint.avoided
        if policy.pin:
            ordered = _pinned(routes, asked)
        else:
            ordered = _BY[policy.order](routes, asked)
            if any(route.entry.canary is not None for route in ordered):
                ordered.sort(key=lambda route: route.entry.canary is None)
        if lacking:
            ordered.sort(key=lambda route: route.name in lacking)
        if avoided:
            ordered.sort(key=lambda route: route.entry.provider in avoided)
        return ordered


@dataclass
class _Asked:
    """One job, as its routes are looked at for it. What costs time is computed once, and only if somebody asks."""

    job_id: str
    body: ChatBody
    policy: RoutingPolicy
    needs: set[Capability]
    spent: int
    p95_ms: Mapping[str, int]
    restraint: CostPolicy = FREE
    estimates: dict[str, int] = field(default_factory=dict)
    lacking: dict[str, Set[Capability]] = field(default_factory=dict)
    cap: int | None = None  # micro-dollars that the whole job may cost

    def __post_init__(self) -> None:
        if self.policy.max_cost_usd is not None:
            self.cap = micros_of(self.policy.max_cost_usd)
        if self.restraint.cap is not None:
            self.cap = self.restraint.cap if self.cap is None else min(self.cap, self.restraint.cap)

    @cached_property
    def prompt_tokens(self) -> int:
        return estimated(self.body)

    @cached_property
    def named_output(self) -> int | None:
        return longest_answer(self.body)

    @cached_property
    def output_tokens(self) -> int:
        """Of an answer, where the job names no limit."""
        return self.restraint.output_tokens or self.policy.output_tokens

    @property
    def tokens(self) -> int:
        """Of a call."""
        return self.prompt_tokens + (self.named_output or self.output_tokens)

    def bound(self, candidates: Sequence[Route]) -> int | None:
        """The limit that answers are sent with, as the job names none and something has to hold."""
        if self.named_output is not None:
            return None
        capped = self.cap is not None or self.restraint.output_tokens is not None
        held = capped or any(self.restraint.ceiling(route.entry.provider) is not UNCAPPED for route in candidates)
        return self.output_tokens if held else None

    def lacks(self, route: Route) -> Set[Capability]:
        able, known = route.entry.capabilities, route.parameters
        if able is not None:
            return self.needs.difference(able)
        return self.needs.intersection(known.lacks) if known else frozenset()

    def share(self, of: str) -> float:
        """A number in 0..1 that is always the same for this job and `of`, and independent of others."""
        return int.from_bytes(blake2b(f"{self.job_id}\0{of}".encode(), digest_size=6).digest()) / 2**48

    def hindrance(self, route: Route) -> tuple[RejectedFor, str] | None:
        """Why the route cannot be a candidate; the first reason, from what is configured to what is measured."""
        entry, policy = route.entry, self.policy
        if policy.pin and route.name not in policy.pinned:
            return RejectedFor.NOT_PINNED, f"pinned to {', '.join(policy.pinned)}"
        if entry.canary is not None and not policy.pin and self.share(route.name) * 100 >= entry.canary:
            return RejectedFor.CANARY, f"a canary of {entry.canary:g}% of the jobs, this one is not among them"
        if lacks := self.lacks(route):
            self.lacking[route.name] = lacks
            if too_much := lacks - set(policy.may_lack):
                return RejectedFor.LACKS_CAPABILITY, f"lacks {', '.join(sorted(too_much))}"
        if foreign := essential(self.body, route.parameters):
            return RejectedFor.UNSUPPORTED_PARAMETER, f"does not know {', '.join(sorted(foreign))}"
        return self._too_long(route) or self._too_expensive(route) or self._too_slow(route)

    def _too_long(self, route: Route) -> tuple[RejectedFor, str] | None:
        window, longest = route.entry.context_window, route.entry.max_output_tokens
        if longest is not None and (self.named_output or 0) > longest:
            return RejectedFor.OUTPUT_LIMIT, f"{self.named_output} output tokens asked for, it gives {longest}"
        if window is not None and self.prompt_tokens / ESTIMATE_MARGIN + (self.named_output or 0) > window:
            output = f" and {self.named_output} of output" if self.named_output else ""
            return RejectedFor.CONTEXT_WINDOW, f"about {self.prompt_tokens} tokens{output}, its window is {window}"
        return None

    def _too_expensive(self, route: Route) -> tuple[RejectedFor, str] | None:
        price, ceiling = route.price, self.restraint.ceiling(route.entry.provider)
        if ceiling.tokens is not None and self.tokens > ceiling.tokens:
            return RejectedFor.OVER_COST, f"about {self.tokens} tokens, a cap of this month is {ceiling.tokens}"
        if price is None:
            if self.cap is None and ceiling.micros is None:
                return None
            if ceiling.micros == 0:  # somebody stopped the scope: its jobs wait, whatever they would cost
                return RejectedFor.OVER_BUDGET, f"the cap of {ceiling.scope} is $0, so its jobs wait"
            fix = "give it a `price` in routes.json, or `pip install genai-prices`"
            return RejectedFor.NO_PRICE, f"its price is not known, so no cap can be held — {fix}"
        caching = self.policy.prompt_caching
        length = self.named_output or self.output_tokens
        estimate = self.estimates[route.name] = estimate_micros(
            route, price, self.prompt_tokens, length, caching=caching
        )
        # at a cap of $0 no call would ever fit: there the ledger refuses it, and the job waits
        if ceiling.micros and estimate > ceiling.micros:
            told = f"about ${dollars(estimate):.6f}, the whole cap of {ceiling.scope} is ${dollars(ceiling.micros):.6f}"
            return RejectedFor.OVER_COST, f"{told} a month"
        if self.cap is not None and (why := too_expensive(estimate, self.spent, self.cap)):
            return RejectedFor.OVER_COST, why
        return None

    def _too_slow(self, route: Route) -> tuple[RejectedFor, str] | None:
        limit, p95 = self.policy.max_latency_seconds, self.p95_ms.get(route.name)
        if limit is None or p95 is None or p95 <= limit * 1000:
            return None
        return RejectedFor.TOO_SLOW, f"p95 {p95} ms, the limit is {limit * 1000:.0f} ms"


def estimate_micros(route: Route, price: Price, prompt: int, output_tokens: int, *, caching: bool) -> int:
    """Micro-dollars of a call of so many tokens, whose answer is as long as it may be; a prompt may be written to a cache."""
    written = prompt if route.entry.api == "anthropic" and caching else 0
    return cost_micros(price, prompt, bound_of(route, output_tokens), written=written)


def bound_of(route: Route, output_tokens: int) -> int:
    """How long an answer of the route may be, where the job does not say."""
    return min(output_tokens, route.entry.max_output_tokens or output_tokens)


def _listed(routes: list[Route], asked: _Asked) -> list[Route]:
    """Hot, then warm, as the map lists them; the routes of a tier that have weights are drawn by them for their places."""
    if not any(route.entry.weight is not None for route in routes):
        return list(routes)
    drawn = {
        tier: iter(sorted((r for r in routes if r.tier == tier and r.entry.weight is not None), key=_draw(asked)))
        for tier in ("hot", "warm")
    }
    return [route if route.entry.weight is None else next(drawn[route.tier]) for route in routes]


def _draw(asked: _Asked) -> Any:
    """A weighted order without replacement (Efraimidis and Spirakis, 2006); weight 0 comes last."""

    def key(route: Route) -> float:
        weight = route.entry.weight or 0.0
        return -math.log(1 - asked.share(route.name)) / weight if weight else math.inf

    return key


def _pinned(routes: list[Route], asked: _Asked) -> list[Route]:
    """As the pin lists them; those of a group by the policy's order."""
    named, ordered = {route.name: route for route in routes}, list[Route]()
    for place in asked.policy.pin:
        group = [place] if isinstance(place, str) else place
        ordered += _BY[asked.policy.order]([named.pop(name) for name in group if name in named], asked)
    return ordered


def _cheapest(routes: list[Route], asked: _Asked) -> list[Route]:
    """All routes by what the call may cost; one without a known price comes last."""
    return sorted(routes, key=lambda route: asked.estimates.get(route.name, math.inf))


def _fastest(routes: list[Route], asked: _Asked) -> list[Route]:
    """All routes by their p95 lately. One that is not known comes last; now and then it comes first, to become known."""
    unknown = 0.0 if asked.share("explore") * EXPLORES < 1 else math.inf
    return sorted(routes, key=lambda route: asked.p95_ms.get(route.name, unknown))


_BY: dict[Order, Callable[[list[Route], _Asked], list[Route]]] = {
    "listed": _listed,
    "cost": _cheapest,
    "latency": _fastest,
}
