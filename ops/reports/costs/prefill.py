"""Fills the inputs of the cost plan: from the traffic of the last 30 days, from routes.json and policies/jobs.yaml, and from
ASSUMED where neither says anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import redis

from ops.reports.costs.inputs import Given, Inputs, Origin, RouteInputs
from producer.environment import Environment, find_configuration
from producer.errors import ConfigurationError
from producer.policy import load_policies
from worker.history.document import ALL, Facts, together
from worker.history.read import slices
from worker.objectives.indicators import counts_of
from worker.queue.dead_letters import now_ms
from worker.routes.prices import price_list, public_price
from worker.routes.route import load_routes
from worker.routes.schema import RouteEntry, Tier, named, read_map
from worker.routing.attempt import RETRIES_BEFORE_ANOTHER
from worker.routing.backoff import FIRST_SECONDS, MAX_SECONDS

MONTH_DAYS, DAY_MS = 30, 86_400_000
FEWEST_CALLS = 20  # of a route, for a failure rate and times that mean something

ASSUMED: Mapping[str, tuple[float, str]] = {
    "requests": (10_000, "no traffic was measured"),
    "tokens_in": (1_500, "no traffic was measured; a page of text is about 500 tokens"),
    "tokens_out": (500, "no traffic was measured; a page of text is about 500 tokens"),
    "redis_usd": (10, "small managed servers cost 5 to 15 dollars"),
    "retry_fails": (0.5, "half of the failures last longer than a short wait"),
    "same_provider_fails": (0.8, "most failures that last are of the whole provider"),
    "failed_billed": (0.1, "providers bill no errors, but work that was under way at a timeout"),
    "input_price": (3, "the price is not known; give the route a `price`, or: pip install 'failover-worker[prices]'"),
    "output_price": (15, "the price is not known; give the route a `price`, or: pip install 'failover-worker[prices]'"),
    "failure_rate": (0.01, f"fewer than {FEWEST_CALLS} calls were measured"),
    "p50_seconds": (2, f"fewer than {FEWEST_CALLS} calls were measured"),
    "p95_seconds": (8, f"fewer than {FEWEST_CALLS} calls were measured"),
    "failed_seconds": (2, "errors come at once, timeouts late"),
}


@dataclass(frozen=True)
class Traffic:
    """What was measured in the last `days` days, at least one, in all and by route. `requests`: those that needed a call."""

    days: float
    requests: int
    facts: Facts
    of_route: Mapping[str, Facts]


@dataclass(frozen=True)
class PlannedRoute:
    """A route to plan with. `model`: with variables filled in."""

    name: str
    tier: Tier
    entry: RouteEntry
    model: str


def prefilled(environment: Environment, job_type: str, traffic: Traffic | None) -> Inputs:
    """The inputs for a job type's deadline. Raises ConfigurationError; InvalidJob for a job type that does not exist."""
    routes, origin = planned_routes(environment)
    policy = load_policies(environment).of(job_type)
    deadline = min(policy.deadline_seconds, policy.max_time_to_answer_seconds)
    worker = "what the worker does"
    return Inputs(
        requests=_requests(traffic),
        tokens_in=_tokens("tokens_in", "prompt_tokens", traffic),
        tokens_out=_tokens("tokens_out", "completion_tokens", traffic),
        redis_usd=_assumed("redis_usd"),
        deadline_seconds=_configured(deadline, f"policies/jobs.yaml, for one execution of the job type {job_type}"),
        first_wait_seconds=_configured(FIRST_SECONDS, worker),
        longest_wait_seconds=_configured(MAX_SECONDS, worker),
        retry_fails=_assumed("retry_fails"),
        same_provider_fails=_assumed("same_provider_fails"),
        failed_billed=_assumed("failed_billed"),
        routes=tuple(_route(route, traffic, last=route is routes[-1]) for route in routes),
        routes_from=origin,
    )


def planned_routes(environment: Environment) -> tuple[list[PlannedRoute], str]:
    """(the routes that a worker would use, in their order; which map that is). Where no route can be used yet, because there
    is no key, all of the map. Canaries are left out. Raises ConfigurationError."""
    try:
        loaded = load_routes(environment)
        found = [PlannedRoute(each.name, each.tier, each.entry, each.model) for each in loaded.routes]
        origin = loaded.origin
    except ConfigurationError:
        path = find_configuration("routes.json", "ROUTES_FILE", environment)
        enabled = [each for each in named(read_map(path)) if each[2].enabled]
        found = [PlannedRoute(name, tier, entry, entry.model) for name, tier, entry in enabled]
        origin = f"{path}: all of its routes, as none can be used yet (`failover routes check` says why)"
        if not found:
            raise
    return [each for each in found if each.entry.canary is None] or found, origin


def measured(client: redis.Redis) -> Traffic | None:
    """The traffic of the last 30 days; None if there was none."""
    now = now_ms(client)
    found = list(slices(client, now - MONTH_DAYS * DAY_MS, now))
    document = together(each.document for each in found)
    facts = document.facts[ALL].get("") or Facts()
    requests = counts_of(facts).requests - facts.counters.get("cached", 0)
    if requests <= 0:
        return None
    begin = next(each.begin_ms for each in found if each.document.facts[ALL])
    days = min(max((now - begin) / DAY_MS, 1.0), MONTH_DAYS)
    return Traffic(days, requests, facts, document.facts["route"])


def _requests(traffic: Traffic | None) -> Given:
    if traffic is None:
        return _assumed("requests")
    told = f"{traffic.requests:,} in {traffic.days:.1f} days, for {MONTH_DAYS} days"
    return Given(round(traffic.requests * MONTH_DAYS / traffic.days), Origin.MEASURED, told)


def _tokens(name: str, counter: str, traffic: Traffic | None) -> Given:
    calls = traffic.facts.counters.get("calls", 0) if traffic else 0
    if traffic is None or not calls:
        return _assumed(name)
    tokens = traffic.facts.counters.get(counter, 0)
    return Given(round(tokens / calls, 1), Origin.MEASURED, f"{tokens:,} tokens of {calls:,} paid calls")


def _route(route: PlannedRoute, traffic: Traffic | None, *, last: bool) -> RouteInputs:
    facts = traffic.of_route.get(route.name) if traffic else None
    retries, input_price, output_price = _retries(route.entry, last=last), *_prices(route)
    return RouteInputs(
        route.name, route.entry.provider, route.tier, input_price, output_price, retries=retries, **_calls(facts)
    )


def _retries(entry: RouteEntry, *, last: bool) -> Given:
    if last or entry.retries <= RETRIES_BEFORE_ANOTHER:
        return _configured(entry.retries, "`retries` of the route")
    told = f"`retries` is {entry.retries}, but a worker makes {RETRIES_BEFORE_ANOTHER} while another route is open"
    return _configured(RETRIES_BEFORE_ANOTHER, told)


def _prices(route: PlannedRoute) -> tuple[Given, Given]:
    price, source = route.entry.price, "`price` of the route"
    if price is None:
        price, source = public_price(route.entry.provider, route.model), f"list price of {price_list()}"
    if price is None:
        return _assumed("input_price"), _assumed("output_price")
    return _configured(price.input, source), _configured(price.output, source)


def _calls(facts: Facts | None) -> dict[str, Given]:
    """What the calls of a route say: how often they fail, and how long they take."""
    calls = facts.counters.get("attempts", 0) if facts else 0
    names = ("failure_rate", "p50_seconds", "p95_seconds", "failed_seconds")
    found = {name: _assumed(name) for name in names}
    if facts is None or calls < FEWEST_CALLS:
        return found
    failed = calls - facts.counters.get("attempts ok", 0)
    told = f"{failed:,} of {calls:,} calls failed; with one more of each kind, as few calls without a failure promise little"
    found["failure_rate"] = Given((failed + 1) / (calls + 2), Origin.MEASURED, told)  # Laplace's rule of succession
    for name, share in (("p50_seconds", 0.5), ("p95_seconds", 0.95)):
        seconds = (facts.times["attempt"].quantile(share) or 0) / 1000
        found[name] = Given(round(seconds, 3), Origin.MEASURED, f"{calls:,} calls, within 2%")
    return found


def _assumed(name: str) -> Given:
    value, why = ASSUMED[name]
    return Given(value, Origin.ASSUMED, why)


def _configured(value: float, source: str) -> Given:
    return Given(value, Origin.CONFIGURED, source)
