"""What a job gives up so that it costs less, as tables: by its feature's caps, by cost saving, by what a route lacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from producer.job import ChatBody, LLMJob
from producer.trail import RejectedFor
from tests.support.jobs import asking
from worker.money.budget_state import NOTHING, BudgetState, CapStatus, Standing
from worker.money.caps import Budgets, Owner
from worker.providers.json_instruction import ONLY_JSON
from worker.routes.route import Route
from worker.routes.schema import RouteEntry
from worker.routes.tokens import estimated
from worker.routing.cost_degradation import (
    BRIEFER,
    CHEAPER,
    SHORTER,
    SHORTEST_ANSWER_TOKENS,
    ReducedJob,
    fitted_to_cap,
    reduced_for_budget,
)
from worker.routing.degrade import instructed, smaller_first, without
from worker.routing.plan import CostPolicy, Plan, Rejected

SHORT = [{"role": "user", "content": "hi"}]
LONG = [{"role": role, "content": "word " * 40} for _ in range(4) for role in ("user", "assistant")] + SHORT
OWNER = Owner("j", "acme", "u1", "notes", "q", "j:e")
REDUCED = Standing({}, {}, "cost is reduced by sam")


def route(name: str, **fields: Any) -> Route:
    return Route(name, "hot", RouteEntry(provider=name, model="m", base_url="http://x", **fields), "http://x")


A, B = route("a"), route("b")


def job(messages: list[dict[str, str]] = SHORT, feature: str = "notes", **body: Any) -> LLMJob:
    return asking({"messages": messages, **body}, feature=feature)


def reduced(asked: LLMJob, standing: Standing = NOTHING, **budgets: Any) -> ReducedJob:
    state = BudgetState(Budgets.model_validate(budgets), standing)
    return reduced_for_budget(asked, OWNER, state, [A, B])


def notes(**cap: Any) -> dict[str, Any]:
    return {"notes": cap}


def at_the_end(*scopes: str) -> Standing:
    return Standing({}, {scope: CapStatus(scope, 95.0, False, 10, 10, -1, 10) for scope in scopes})


@pytest.mark.parametrize(
    ("cap", "asked", "limit", "given_up", "over"),
    [
        ({}, job(), None, [], ""),
        ({"max_output_tokens": 100}, job(), 100, [], ""),  # it names no limit: its answer is bounded
        ({"max_output_tokens": 100}, job(max_tokens=100), None, [], ""),
        ({"max_output_tokens": 100}, job(max_tokens=101), None, [BRIEFER], ""),
        ({"max_output_tokens": 100, "when_over": "abort"}, job(max_tokens=101), None, [], "101 tokens of output"),
        ({"max_output_tokens": 100, "when_over": "abort"}, job(), 100, [], ""),
        ({"max_input_tokens": 10_000}, job(LONG), None, [], ""),
        ({"max_input_tokens": 200}, job(LONG), None, [SHORTER], ""),
        ({"max_input_tokens": 200, "when_over": "abort"}, job(LONG), None, [], "tokens of input"),
        ({"max_input_tokens": 1}, job(), None, [], "tokens of input"),  # nothing is left to leave out
        ({"max_input_tokens": 1, "max_output_tokens": 1}, job(max_tokens=9), None, [BRIEFER], "tokens of input"),
    ],
)
def test_a_features_caps_on_one_job(
    cap: dict[str, Any], asked: LLMJob, limit: int | None, given_up: list[str], over: str
) -> None:
    sent = reduced(asked, features=notes(**cap))
    assert (sent.restraint.output_tokens, list(sent.given_up)) == (limit, given_up)
    assert over in sent.over if over else not sent.over
    if over:
        assert "feature notes takes at most" in sent.over and "features in policies/budgets.yaml" in sent.over
    elif cap.get("max_input_tokens"):
        assert estimated(sent.body) <= cap["max_input_tokens"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_is_lowered_by_the_name_that_the_job_gave_it(name: str) -> None:
    sent = reduced(asking({"messages": SHORT, name: 500}, feature="notes"), features=notes(max_output_tokens=100))
    assert dict(sent.body) == {"messages": SHORT, name: 100}


def test_a_job_without_a_feature_has_the_default_caps() -> None:
    sent = reduced(job(feature=""), features={"default": {"max_input_tokens": 1}})
    assert "feature default takes at most 1 a job" in sent.over


@pytest.mark.parametrize(("when_over", "degrades"), [("degrade", True), ("abort", False)])
def test_a_cap_of_dollars_is_the_plans(when_over: str, degrades: bool) -> None:
    sent = reduced(job(), features=notes(max_cost_usd=0.25, when_over=when_over))
    assert (sent.restraint.cap, sent.degrades) == (250_000, degrades)


@pytest.mark.parametrize(
    ("standing", "saves", "avoided", "why"),
    [
        (NOTHING, False, set(), ""),
        (REDUCED, True, set(), "cost is reduced by sam"),
        (at_the_end("total"), True, set(), "total has used at least 95%"),
        (at_the_end("tenant:acme"), True, set(), "tenant:acme has used"),
        (at_the_end("tenant:globex"), False, set(), ""),
        (at_the_end("provider:a"), False, {"a"}, ""),  # the other one serves
        (at_the_end("provider:a", "provider:b"), True, {"a", "b"}, "a, b is at the end of its month's budget"),
    ],
)
def test_near_the_end_of_a_month_a_job_costs_less(standing: Standing, saves: bool, avoided: set[str], why: str) -> None:
    sent = reduced(job(LONG), standing)
    assert (sent.restraint.cheapest, set(sent.restraint.avoided)) == (saves, avoided)
    assert (sent.restraint.output_tokens, list(sent.given_up)) == ((500, [SHORTER]) if saves else (None, []))
    assert why in sent.restraint.why and bool(why) == bool(sent.restraint.why)


def test_a_critical_feature_gives_up_nothing() -> None:
    assert not reduced(job(LONG), REDUCED, cost_saving={"critical_features": ["notes"]}).restraint.cheapest


@pytest.mark.parametrize(("most", "bound"), [(100, 100), (900, 500)])
def test_the_smaller_one_of_two_bounds_holds(most: int, bound: int) -> None:
    sent = reduced(job(), REDUCED, features=notes(max_output_tokens=most))
    assert sent.restraint.output_tokens == bound


TOO_EXPENSIVE = Plan("listed", rejected=(Rejected(A, RejectedFor.OVER_COST, "dear"),))
UNABLE = Plan("listed", rejected=(Rejected(A, RejectedFor.LACKS_CAPABILITY, "no tools"),))
FITS = Plan("listed", candidates=(A,), listed={"a": 0, "b": 1})


class Planner:
    """A route is within the cap once the conversation has at most `messages`, and the answer at most `tokens`."""

    def __init__(self, messages: int = 99, tokens: int = 10**9) -> None:
        self.messages, self.tokens, self.asked = messages, tokens, list[int | None]()

    def __call__(self, body: ChatBody, policy: CostPolicy) -> Plan:
        self.asked.append(policy.output_tokens)
        fits = len(body["messages"]) <= self.messages and (policy.output_tokens or 1024) <= self.tokens
        return FITS if fits else TOO_EXPENSIVE


def sent_as(asked: LLMJob, degrades: bool = True) -> ReducedJob:
    return ReducedJob(asked.body, CostPolicy(cap=1), degrades=degrades)


@pytest.mark.parametrize(
    ("asked", "degrades", "planner", "fits", "given_up"),
    [
        (job(LONG), True, Planner(messages=5), True, [SHORTER]),
        (job(LONG), True, Planner(messages=1), True, [SHORTER]),
        (job(LONG), True, Planner(messages=1, tokens=300), True, [SHORTER, BRIEFER]),
        (job(), True, Planner(tokens=SHORTEST_ANSWER_TOKENS), True, [BRIEFER]),
        (job(), True, Planner(tokens=SHORTEST_ANSWER_TOKENS - 1), False, []),
        (job(max_tokens=900), True, Planner(tokens=512), False, []),  # what it asks for by name is not cut
        (job(LONG), False, Planner(messages=5), False, []),
    ],
)
def test_a_job_gives_up_more_until_a_route_is_within_its_cap(
    asked: LLMJob, degrades: bool, planner: Planner, fits: bool, given_up: list[str]
) -> None:
    sent = sent_as(asked, degrades)
    planned = fitted_to_cap(sent, TOO_EXPENSIVE, planner)
    assert (bool(planned.candidates), list(sent.given_up)) == (fits, given_up)


def test_an_answer_is_halved_and_never_below_what_is_worth_a_call() -> None:
    planner = Planner(tokens=1)
    fitted_to_cap(sent_as(job()), TOO_EXPENSIVE, planner)
    assert planner.asked == [512, 256, 128, 64]


@pytest.mark.parametrize("planned", [FITS, UNABLE], ids=["it fits", "no route can"])
def test_nothing_is_given_up_in_vain(planned: Plan) -> None:
    sent, planner = sent_as(job(LONG)), Planner()
    assert fitted_to_cap(sent, planned, planner) is planned
    assert (planner.asked, sent.given_up, sent.body["messages"]) == ([], {}, LONG)


BY_COST = replace(FITS, order="cost", candidates=(A, B), why="cost is reduced", reordered=True)


@pytest.mark.parametrize(
    ("planned", "first", "given_up"),
    [
        (BY_COST, B, [CHEAPER]),  # no price is known: the last route of a tier is its small one
        (replace(BY_COST, estimates={"a": 1, "b": 2}), A, []),
        (replace(BY_COST, candidates=(B, A), estimates={"a": 2, "b": 1}), B, [CHEAPER]),
        (replace(BY_COST, order="pinned"), A, []),
        (replace(BY_COST, reordered=False), B, []),
        (replace(BY_COST, why=""), A, []),
    ],
)
def test_a_job_that_is_to_cost_less_says_so_when_its_first_route_is_another(
    planned: Plan, first: Route, given_up: list[str]
) -> None:
    sent = sent_as(job())
    assert fitted_to_cap(sent, planned, Planner()).candidates[0] is first
    assert list(sent.given_up) == given_up


def test_routes_that_are_drawn_by_weight_say_nothing_of_size() -> None:
    drawn = [route("a", weight=1), route("b", weight=2)]
    assert [each.name for each in smaller_first(drawn)] == ["a", "b"]


FORM = {"type": "json_object"}
TOOLS = {"tools": [{}], "tool_choice": "auto", "parallel_tool_calls": True}


@pytest.mark.parametrize(
    ("body", "lacks", "able", "sent"),
    [
        ({"tools": [{}], "n": 1}, set(), [], {"tools": [{}], "n": 1}),
        ({**TOOLS, "n": 1}, {"tools"}, [], {"n": 1}),
        ({"response_format": FORM}, {"json_mode"}, [], {"words": ONLY_JSON}),
        ({"response_format": FORM}, {"json_schema"}, ["json_mode"], {"words": ONLY_JSON, "response_format": FORM}),
        ({"n": 1}, {"json_mode"}, ["json_mode"], {"n": 1}),
        ({**TOOLS, "response_format": FORM}, {"tools", "json_mode"}, [], {"words": ONLY_JSON}),
    ],
)
def test_a_route_is_asked_in_words_for_what_it_lacks(
    body: dict[str, Any], lacks: set[Any], able: Iterable[Any], sent: dict[str, Any]
) -> None:
    words = [{"role": "system", "content": sent.pop("words")}] if "words" in sent else []
    given = {"messages": SHORT, **body}
    before = {**given}
    assert without(given, lacks, list(able)) == {"messages": [*words, *SHORT], **sent}
    assert given == before


def test_an_instruction_follows_those_that_a_conversation_begins_with() -> None:
    head = [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}]
    new = {"role": "system", "content": "c"}
    assert instructed([*head, *SHORT, head[0]], "c") == [*head, new, *SHORT, head[0]]
    assert instructed(head, "c") == [*head, new]
