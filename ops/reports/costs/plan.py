"""What failover costs a month, how long answers take with retries, and how many miss their deadline. `workbook.py` has the
same calculation as formulas, line by line; a test recalculates them and compares.

A request makes calls one after another: on each route one call and its retries, then on the next route, until one answers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from ops.reports.costs.inputs import FIELDS, MOST_RETRIES, ROUTE_FIELDS, Field, Inputs, RouteInputs, given

CALLS_OF_A_ROUTE = 1 + MOST_RETRIES
STEPS = 100  # points of the curve whose 95% is looked for, from SHORTEST_SECONDS to the deadline, each a bit later than the last
SHORTEST_SECONDS = 0.01
P95 = 0.95
MOST_TENTHS = 99  # of a tail: LibreOffice takes a number that is too small for an error
FEWEST_MISSES = 1e-6  # a month: what is below is rounding


@dataclass(frozen=True)
class Call:
    """One call of a request. `begins`: seconds after the first call. Shares of all requests: `reached` this call and
    `answered` by it. `cost_usd`: of the call, for a request on average, also of those that never came to it."""

    route: RouteInputs
    begins: float
    reached: float
    answered: float
    cost_usd: float


@dataclass(frozen=True)
class Outcome:
    """What comes of a month's requests. `missed_share`: of the requests, those without an answer at the deadline. `p95_seconds`:
    95% of the requests are answered by then; the deadline if that is not so at the deadline."""

    cost_usd: float
    request_usd: float
    p95_seconds: float
    missed_share: float
    missed_requests: float


@dataclass(frozen=True)
class Plan:
    """The results. `failed_over`: share of the requests that another route than the first answers, in time or not.
    `break_even_usd`: failover pays once a missed deadline costs more than this; None if it avoids none."""

    with_failover: Outcome
    first_route_only: Outcome
    failed_over: float
    extra_usd: float
    misses_avoided: float
    break_even_usd: float | None


def plan(inputs: Inputs) -> Plan:
    """Compute the results."""
    calls, unanswered = ladder(inputs)
    first, others = calls[:CALLS_OF_A_ROUTE], calls[CALLS_OF_A_ROUTE:]
    unanswered_by_first = others[0].reached if others else unanswered
    whole = _outcome(inputs, calls, unanswered, inputs.redis_usd.value)
    alone = _outcome(inputs, first, unanswered_by_first, 0.0)
    extra, avoided = whole.cost_usd - alone.cost_usd, max(0.0, alone.missed_requests - whole.missed_requests)
    return Plan(
        with_failover=whole,
        first_route_only=alone,
        failed_over=sum(call.answered for call in others),
        extra_usd=extra,
        misses_avoided=avoided,
        break_even_usd=max(0.0, extra / avoided) if avoided > FEWEST_MISSES else None,
    )


def ladder(inputs: Inputs) -> tuple[list[Call], float]:
    """(the calls of a request, CALLS_OF_A_ROUTE for each route, unused retries too; the share that no call answers)."""
    calls, reached, begins = list[Call](), 1.0, 0.0
    for route, retry, fails in _chances(inputs):
        used = retry <= route.retries.value
        if used and retry:
            begins += min(inputs.longest_wait_seconds.value, inputs.first_wait_seconds.value * 2 ** (retry - 1))
        answered = reached * (1 - fails) if used else 0.0
        price = inputs.tokens_in.value * route.input_price.value + inputs.tokens_out.value * route.output_price.value
        billed = answered + reached * fails * inputs.failed_billed.value if used else 0.0
        calls.append(Call(route, begins, reached, answered, billed * price / 1e6))
        if used:
            reached *= fails
            begins += route.failed_seconds.value
    return calls, reached


def _chances(inputs: Inputs) -> Iterator[tuple[RouteInputs, int, float]]:
    """(route, number of the retry or 0, the chance that this call fails if all before it failed) of each possible call."""
    providers = set[str]()
    for route in inputs.routes:
        provider, fails = route.provider.casefold(), route.failure_rate.value
        first = max(fails, inputs.same_provider_fails.value) if provider in providers else fails
        providers.add(provider)
        yield route, 0, first
        for retry in range(1, CALLS_OF_A_ROUTE):
            yield route, retry, max(fails, inputs.retry_fails.value)


def late(route: RouteInputs, seconds: float) -> float:
    """The share of a route's answers that take longer than so many seconds. Up to its p50 the share falls evenly; beyond,
    as many remain at each step of p95 - p50 as a tenth of the step before (an exponential tail)."""
    p50, p95 = route.p50_seconds.value, route.p95_seconds.value
    if seconds <= 0:
        return 1.0
    if seconds <= p50:
        return 1 - 0.5 * seconds / p50
    return float(0.5 * 0.1 ** min(MOST_TENTHS, (seconds - p50) / (p95 - p50))) if p95 > p50 else 0.0


def _outcome(inputs: Inputs, calls: Sequence[Call], unanswered: float, fixed_usd: float) -> Outcome:
    requests, deadline = inputs.requests.value, inputs.deadline_seconds.value
    cost = fixed_usd + requests * sum(call.cost_usd for call in calls)
    missed = unanswered + sum(call.answered * late(call.route, deadline - call.begins) for call in calls)
    return Outcome(
        cost_usd=cost,
        request_usd=cost / requests if requests else 0.0,
        p95_seconds=_p95(calls, times(deadline)),
        missed_share=missed,
        missed_requests=requests * missed,
    )


def times(deadline: float) -> list[float]:
    """The points of the curve, in seconds: 0, then evenly in the logarithm up to the deadline."""
    scale = deadline / SHORTEST_SECONDS
    return [0.0, *(SHORTEST_SECONDS * scale ** (step / STEPS) for step in range(1, STEPS + 1))]


def _p95(calls: Sequence[Call], points: Sequence[float]) -> float:
    """When 95% of the requests are answered, between the two points around it on a straight line; at most the last point."""
    curve = [sum(call.answered * (1 - late(call.route, at - call.begins)) for call in calls) for at in points]
    if curve[-1] <= P95:
        return points[-1]
    after = bisect_right(curve, P95)
    (low, begin), (high, end) = islice(zip(curve, points, strict=True), after - 1, after + 1)
    return begin + (P95 - low) / (high - low) * (end - begin)


def as_data(inputs: Inputs, results: Plan) -> dict[str, Any]:
    """For programs: every input with its unit and its origin, and the results."""
    routes = [
        {"route": route.name, "provider": route.provider, "tier": route.tier, "inputs": _data(route, ROUTE_FIELDS)}
        for route in inputs.routes
    ]
    return {
        "inputs": _data(inputs, FIELDS),
        "routes_from": inputs.routes_from,
        "routes": routes,
        "results": asdict(results),
    }


def _data(of: Inputs | RouteInputs, fields: Sequence[Field]) -> dict[str, dict[str, float | str]]:
    values = {field: given(of, field) for field in fields}
    return {
        field.name: {"value": each.value, "unit": field.unit, "origin": str(each.origin), "source": each.source}
        for field, each in values.items()
    }
