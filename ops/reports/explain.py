"""The routing map for people: each route with its state, and the plan for one job with every reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import redis

from producer.job import LLMJob
from worker.breakers import health
from worker.breakers.health import Health
from worker.configuration import Configuration
from worker.control import pause as flags
from worker.money import budget_state
from worker.money.budget_state import BudgetState
from worker.money.caps import Owner
from worker.routes.policy import RoutingPolicy
from worker.routes.prices import dollars
from worker.routes.route import Route
from worker.routes.tokens import estimated
from worker.routing.cost_degradation import reduced_for_budget
from worker.routing.plan import BYPASS
from worker.routing.planner import Planner


@dataclass(frozen=True)
class Standing:
    """The state in Redis, by route name; empty without Redis. `closed`: why operators disabled or paused a route.
    `money`: the use of the caps."""

    health: dict[str, Health] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    money: budget_state.Standing = budget_state.NOTHING


@dataclass(frozen=True)
class Row:
    """One route of the map. `left_out`: why it cannot be used. `keys`: the sources of its keys. Prices in US dollars for a
    million tokens."""

    route: str
    tier: str
    api: str = ""
    model: str = ""
    host: str = ""
    keys: tuple[str, ...] = ()
    price: dict[str, float | None] | None = None
    capabilities: tuple[str, ...] | None = None
    context_window: int | None = None
    weight: float | None = None
    canary: float | None = None
    breaker: str | None = None
    p95_ms: int | None = None
    closed: str | None = None
    left_out: str | None = None


@dataclass(frozen=True)
class Kept:
    """A candidate. `now`: why it would be skipped at this moment. `lacks`: capabilities that the job needs
    and the route does not have."""

    route: str
    tier: str
    estimate_usd: float | None
    p95_ms: int | None
    lacks: tuple[str, ...] = ()
    now: str | None = None


@dataclass(frozen=True)
class Refused:
    """A route that the plan rejects, with the code and the reason in words."""

    route: str
    tier: str
    code: str
    reason: str


@dataclass(frozen=True)
class Explained:
    """The plan for one job. Money in US dollars."""

    job_type: str
    order: str
    max_cost_usd: float | None
    max_latency_seconds: float | None
    prompt_tokens: int
    candidates: tuple[Kept, ...]
    rejected: tuple[Refused, ...]
    reduced: str | None = None  # why cost saving applies, or why the job may not be sent

    def __str__(self) -> str:
        limits = f", at most ${self.max_cost_usd:g}" if self.max_cost_usd is not None else ""
        limits += f", p95 at most {self.max_latency_seconds:g} s" if self.max_latency_seconds is not None else ""
        lines = [f"{self.job_type}: {self.order}{limits}; about {self.prompt_tokens} tokens of prompt"]
        lines += [f"  cost saving: {self.reduced}"] if self.reduced else []
        for rank, kept in enumerate(self.candidates, 1):
            facts = [f"about ${kept.estimate_usd:.6f}"] if kept.estimate_usd is not None else []
            by_p95 = self.max_latency_seconds is not None or self.order == "latency"
            unknown = ["no recent p95"] if by_p95 else []
            facts += [f"p95 {kept.p95_ms} ms"] if kept.p95_ms is not None else unknown
            facts += [f"without {', '.join(kept.lacks)}"] if kept.lacks else []
            facts += [f"skipped now: {kept.now}"] if kept.now else []
            lines.append(f"  {rank}. {kept.route} ({kept.tier})" + (f": {'; '.join(facts)}" if facts else ""))
        if not self.candidates:
            lines.append("  no route would be called")
        lines += [f"  -  {each.route} ({each.tier}) {each.code}: {each.reason}" for each in self.rejected]
        return "\n".join(lines)


def standing(client: redis.Redis | None, configuration: Configuration) -> Standing:
    """The state of the map's routes in Redis."""
    if client is None:
        return Standing()
    routes = configuration.routes.routes
    found = flags.paused(client, [])
    closing = ((route, flag) for route in routes for flag in found if flag.closes(route.name, route.entry.provider))
    closed = {route.name: f"{'disabled' if flag.route else 'paused'}: {flag}" for route, flag in closing}
    of_routes = health.of_routes(client, [route.name for route in routes])
    return Standing(of_routes, closed, budget_state.standing(client))


def rows(configuration: Configuration, standing: Standing) -> list[Row]:
    """The hot routes, then the warm ones, then those left out."""
    routes = configuration.routes
    return [_row(route, standing) for route in routes.routes] + [
        Row(out.name, out.tier, left_out=out.why) for out in routes.left_out
    ]


def _row(route: Route, standing: Standing) -> Row:
    entry, known = route.entry, standing.health.get(route.name)
    return Row(
        route=route.name,
        tier=route.tier,
        api=entry.api,
        model=route.model,
        host=urlsplit(route.base_url).netloc.rpartition("@")[2],
        keys=tuple(key.source for key in route.keys),
        price=route.price.model_dump() if route.price else None,
        capabilities=entry.capabilities,
        context_window=entry.context_window,
        weight=entry.weight,
        canary=entry.canary,
        breaker=_breaker(known) if known else None,
        p95_ms=known.recent_p95_ms if known else None,
        closed=standing.closed.get(route.name),
    )


def _breaker(known: Health) -> str:
    if known.rests_for:
        return f"cooldown: {known.rests_for}, for {known.reopens_in_seconds or 0:.0f} s"
    return known.breaker


def lines(rows: list[Row]) -> Iterator[str]:
    """Two short lines for each route, and one for each route left out."""
    for row in rows:
        if row.left_out is not None:
            yield f"{row.tier:4} {row.route}: left out: {row.left_out}"
            continue
        price = f"${row.price['input']:g} in, ${row.price['output']:g} out" if row.price else "price unknown"
        facts = [row.closed or row.breaker or "", price]
        facts += [f"recent p95 {row.p95_ms} ms"] if row.p95_ms is not None else []
        facts += [f"canary {row.canary:g}%"] if row.canary is not None else []
        facts += [f"weight {row.weight:g}"] if row.weight is not None else []
        yield f"{row.tier:4} {row.route}: {'; '.join(filter(None, facts))}"
        can = "" if row.capabilities is None else f"; can {', '.join(row.capabilities) or 'text only'}"
        window = f"; window {row.context_window}" if row.context_window is not None else ""
        dialect = ", Anthropic's dialect" if row.api == "anthropic" else ""
        key = f"key: {', '.join(row.keys) or 'none'}"
        yield f"     {row.model} at {row.host}{dialect}; {key}{can}{window}"


def explained(configuration: Configuration, standing: Standing, job_id: str, job: LLMJob) -> Explained:
    """The plan that a worker would make now. Raises InvalidJob for an unknown job type."""
    job_type, policy = job.job_type, configuration.policies.of(job.job_type)
    p95_ms = {name: known.recent_p95_ms for name, known in standing.health.items() if known.recent_p95_ms is not None}
    routes, may_spend = configuration.routes, BudgetState(configuration.budgets, standing.money)
    owner = Owner.of(job, job_id, "", "")
    sent = reduced_for_budget(job, owner, may_spend, routes.routes)
    planner = Planner(routes, configuration.routing, p95_ms)
    planned = planner.plan(job_id, job, sent.body, policy.requires, restraint=sent.restraint)
    routing = configuration.routing.of(job_type)
    if planned.order == BYPASS:
        routing = RoutingPolicy()  # the bypass ignores the policy
    return Explained(
        job_type=job_type,
        order=planned.order,
        max_cost_usd=routing.max_cost_usd,
        max_latency_seconds=routing.max_latency_seconds,
        prompt_tokens=estimated(sent.body),
        reduced=sent.over or planned.why or None,
        candidates=tuple(
            Kept(
                route.name,
                route.tier,
                dollars(planned.estimates[route.name]) if route.name in planned.estimates else None,
                planned.p95_ms.get(route.name),
                tuple(sorted(planned.lacks.get(route.name, ()))),
                _now(route, standing) or may_spend.full(owner, route.entry.provider) or None,
            )
            for route in planned.candidates
        ),
        rejected=tuple(
            Refused(each.route.name, each.route.tier, str(each.code), each.reason) for each in planned.rejected
        ),
    )


def _now(route: Route, standing: Standing) -> str | None:
    if closed := standing.closed.get(route.name):
        return closed
    known = standing.health.get(route.name)
    if known is None or known.serves:
        return None
    return _breaker(known) if known.rests_for else f"breaker {known.breaker}"
