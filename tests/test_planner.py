"""Which route, why, at what cost: decided before any network call."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from producer.errors import ConfigurationError
from producer.job import LLMJob
from producer.trail import RejectedFor
from tests.support.jobs import chat
from worker.routes.policy import Routing, RoutingPolicy, load_routing
from worker.routes.prices import Price, billed_micros, cost_micros
from worker.routes.route import Route, Routes
from worker.routes.schema import Cold, RouteEntry
from worker.routing.plan import Plan
from worker.routing.planner import Planner


def route(name: str, tier: Any = "hot", **fields: Any) -> Route:
    entry = RouteEntry(provider=name, model="m", base_url="http://x", **fields)
    return Route(name, tier, entry, "http://x")


def price(dollars: float) -> Price:
    return Price(input=dollars, output=dollars)


def plan(
    routes: list[Route],
    job: LLMJob | None = None,
    p95: dict[str, int] | None = None,
    spent: int = 0,
    job_id: str = "id",
    **policy: Any,
) -> Plan:
    job = job or chat()
    routing = Routing(job_types={"default": RoutingPolicy.model_validate(policy)})
    return Planner(Routes(tuple(routes), (), Cold()), routing, p95 or {}).plan(job_id, job, job.body, (), spent)


def names(planned: Plan) -> list[str]:
    return [route.name for route in planned.candidates]


def codes(planned: Plan) -> dict[str, str]:
    return {each.route.name: str(each.code) for each in planned.rejected}


def test_the_payment_adjacent_workflow() -> None:
    """Latency below 1.5 s, at most $0.004 a request; A is cheap and variable, B stable and expensive, C fast with a low
    limit of tokens."""
    a = route("A", price=price(0.5))
    b = route("B", "warm", price=price(3))
    c = route("C", price=price(1), context_window=800)
    limits: dict[str, Any] = {"order": "cost", "max_cost_usd": 0.004, "max_latency_seconds": 1.5, "output_tokens": 300}
    steady = {"A": 900, "B": 1100, "C": 400}

    usual = plan([a, b, c], p95=steady, **limits)
    assert names(usual) == ["A", "C", "B"]  # the cheapest that keeps both promises
    variable = plan([a, b, c], p95={**steady, "A": 2600}, **limits)
    assert (names(variable), codes(variable)) == (["C", "B"], {"A": "too_slow"})
    assert variable.rejected[0].reason == "p95 2600 ms, the limit is 1500 ms"
    long = plan([a, b, c], chat("word " * 1000), p95={**steady, "A": 2600}, **limits)
    assert codes(long) == {"A": "too_slow", "B": "over_cost", "C": "context_window"}
    assert names(long) == []
    longer_and_steady = plan([a, b, c], chat("word " * 1000), p95=steady, **limits)
    assert names(longer_and_steady) == ["A"]


def test_the_cap_is_of_the_whole_job_so_what_is_spent_counts() -> None:
    cheap, dear = route("cheap", price=price(1)), route("dear", price=price(10))
    limits: dict[str, Any] = {"max_cost_usd": 0.02, "output_tokens": 1000}
    assert names(plan([dear, cheap], **limits)) == ["dear", "cheap"]
    later = plan([dear, cheap], spent=12_000, **limits)
    assert (names(later), codes(later)) == (["cheap"], {"dear": "over_cost"})
    assert "after $0.012000 spent" in later.rejected[0].reason


def test_a_cap_refuses_a_route_whose_price_nobody_knows() -> None:
    assert codes(plan([route("unknown")], max_cost_usd=1)) == {"unknown": "no_price"}
    assert names(plan([route("unknown")])) == ["unknown"]


def test_a_cap_of_nothing_is_honoured() -> None:
    assert codes(plan([route("a", price=price(1))], max_cost_usd=0)) == {"a": "over_cost"}
    assert names(plan([route("free", price=price(0))], max_cost_usd=0)) == ["free"]


def test_an_estimate_takes_the_longest_answer_that_the_job_asks_for() -> None:
    job = LLMJob.parse({"body": {**chat().body, "max_tokens": 5000}})
    assert codes(plan([route("a", price=price(1))], job, max_cost_usd=0.004)) == {"a": "over_cost"}
    assert codes(plan([route("a", max_output_tokens=4096)], job)) == {"a": "output_limit"}


def test_order_by_cost_and_by_latency_crosses_the_tiers() -> None:
    routes = [route("dear", price=price(9)), route("unknown"), route("cheap", "warm", price=price(1))]
    assert names(plan(routes, order="cost")) == ["cheap", "dear", "unknown"]
    p95 = {"dear": 300, "cheap": 800}
    assert names(plan(routes, p95=p95, order="latency")) == ["dear", "cheap", "unknown"]


def test_a_route_of_unknown_latency_is_tried_first_now_and_then() -> None:
    routes = [route("known"), route("unknown")]
    first = Counter(names(plan(routes, p95={"known": 300}, order="latency", job_id=f"job{n}"))[0] for n in range(2000))
    assert 15 <= first["unknown"] <= 75  # one in fifty


def test_weights_share_the_places_of_a_tier() -> None:
    routes = [route("a", weight=9), route("b", weight=1), route("last", weight=0), route("w", "warm")]
    orders = [names(plan(routes, job_id=f"job{n}")) for n in range(2000)]
    first = Counter(order[0] for order in orders)
    assert 1700 <= first["a"] <= 1900
    assert first["a"] + first["b"] == 2000
    assert all(order[2:] == ["last", "w"] for order in orders)
    assert names(plan(routes, job_id="same")) == names(plan(routes, job_id="same"))


@pytest.mark.parametrize(("percent", "least", "most"), [(0, 0, 0), (5, 60, 140), (100, 2000, 2000)])
def test_a_canary_takes_its_share_and_goes_first(percent: float, least: int, most: int) -> None:
    routes = [route("steady"), route("new", canary=percent)]
    plans = [plan(routes, job_id=f"job{n}") for n in range(2000)]
    assert least <= sum(names(each) == ["new", "steady"] for each in plans) <= most
    assert all(codes(each) == {"new": "canary"} for each in plans if names(each) == ["steady"])


def test_pins_are_the_only_routes_and_their_order() -> None:
    planned = plan([route("a"), route("b"), route("c", "warm")], pin=["c", "a"])
    assert (names(planned), codes(planned), planned.order) == (["c", "a"], {"b": "not_pinned"}, "pinned")


def test_a_group_of_a_pin_is_ordered_as_the_policy_says() -> None:
    routes = [
        route("a", weight=3, price=price(2)),
        route("b", weight=1, price=price(1)),
        route("c", "warm"),
        route("d"),
    ]
    pin = [["a", "b"], "c", "a"]
    plans = [plan(routes, job_id=f"job{n}", pin=pin) for n in range(1000)]
    assert {tuple(names(each)) for each in plans} == {("a", "b", "c"), ("b", "a", "c")}
    assert 700 < sum(names(each)[0] == "a" for each in plans) < 800
    assert {names(plan(routes, job_id=f"job{n}", pin=pin, order="cost"))[0] for n in range(50)} == {"b"}
    assert names(plan(routes, pin=pin, order="latency", p95={"a": 900, "b": 100})) == ["b", "a", "c"]
    assert codes(plan(routes, pin=pin)) == {"d": "not_pinned"}


def test_a_route_that_lacks_something_comes_last_and_only_if_the_policy_lets_it() -> None:
    body = {**chat().body, "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}
    job = LLMJob.parse({"body": body})
    routes = [route("lacks", capabilities=["json_mode"]), route("able", "warm", capabilities=["json_schema"])]
    assert codes(plan(routes, job)) == {"lacks": "lacks_capability"}
    allowed = plan(routes, job, may_lack=["json_schema"])
    assert (names(allowed), allowed.lacks) == (["able", "lacks"], {"lacks": {"json_schema"}})


def test_bypass_calls_the_first_route_whatever_the_policy_says() -> None:
    routes = Routes((route("a", canary=0), route("b")), (), Cold(), bypass=True)
    routing = Routing(job_types={"default": RoutingPolicy(pin=("b",), max_cost_usd=0)})
    job = chat()
    planned = Planner(routes, routing, {}).plan("id", job, job.body)
    assert (names(planned), codes(planned)) == (["a"], {"b": "bypass"})


def test_every_route_is_kept_or_rejected_with_a_code_of_the_set() -> None:
    routes = [
        route("a", price=price(1)),
        route("b", canary=0),
        route("c", capabilities=[]),
        route("d", context_window=1),
    ]
    job = LLMJob.parse({"body": {**chat("word " * 50).body, "tools": [{"type": "function"}]}})
    planned = plan(routes, job, max_cost_usd=1)
    assert sorted([*names(planned), *codes(planned)]) == ["a", "b", "c", "d"]
    assert all(each.code in RejectedFor and each.reason for each in planned.rejected)


@pytest.mark.parametrize(
    ("usage", "micros"),
    [
        ({"prompt_tokens": 1_000_000, "completion_tokens": 0}, 3_000_000),
        ({"prompt_tokens": 10, "completion_tokens": 10}, 180),
        ({"prompt_tokens": 100, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 90}}, 57),
        (
            {"prompt_tokens": 100, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 900}},
            570,
        ),  # they stand beside it
        ({"prompt_tokens": 1, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 1}}, 1),
        ({"prompt_tokens": 10, "completion_tokens": 0, "prompt_tokens_details": {"cache_write_tokens": 10}}, 38),
        ({"prompt_tokens": 100}, None),
        ({"prompt_tokens": -5, "completion_tokens": 1}, None),
    ],
)
def test_a_call_costs_its_tokens_once_and_is_rounded_up(usage: dict[str, Any], micros: int | None) -> None:
    assert billed_micros(Price(input=3, output=15, cached_input=0.3, cache_write=3.75), usage) == micros


def test_binary_fractions_add_no_micro_dollar() -> None:
    assert cost_micros(Price(input=0.1, output=0.2), 10, 10) == 3
    assert cost_micros(Price(input=0.15, output=0.6), 20, 5) == 6


def test_a_routing_policy_that_names_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    (tmp_path / "routing.yaml").write_text(
        "version: 1\njob_types:\n  default: {baseline: nobody}\n  batch: {pin: [[gone, a]]}\n  typo: {}\n"
    )
    with pytest.raises(ConfigurationError) as refused:
        load_routing({"POLICIES_DIR": str(tmp_path)}, ["default", "batch"], Routes((route("a"),), (), Cold()))
    told = str(refused.value)
    assert "job_types.default.baseline: no route is named 'nobody'" in told
    assert "job_types.batch.pin: no route is named 'gone'" in told
    assert "job_types.typo: is no job type of jobs.yaml" in told
    assert told.count("nobody") == 1


@pytest.mark.parametrize(("pin", "said"), [("[1]", "pin.0"), ("[a, [a, 2]]", "pin.1"), ("[[]]", "pin.0"), ("a", "pin")])
def test_a_pin_that_is_no_list_of_names_is_refused_in_one_line(pin: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "routing.yaml").write_text(f"version: 1\njob_types:\n  default: {{pin: {pin}}}\n")
    with pytest.raises(ConfigurationError) as refused:
        load_routing({"POLICIES_DIR": str(tmp_path)}, ["default"], Routes((route("a"),), (), Cold()))
    assert f"job_types.default.{said}: should be" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
