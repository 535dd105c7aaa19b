"""The router over real HTTP: one wall clock, who is retried, what a deadline leaves for the next route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import redis

from ops.simulators.provider import Control
from producer.connection import connect_async
from producer.redis_server.cancelling import cancelled
from producer.trail import Attempt
from tests.support.jobs import chat
from tests.support.polling import until
from worker.breakers.health import of_routes
from worker.breakers.local import RULES, Rules
from worker.breakers.registry import Breakers
from worker.poller import Poller
from worker.providers import Providers
from worker.providers.assembly import Assembly
from worker.routes.api_keys import Key, parsed
from worker.routes.policy import Routing
from worker.routes.route import Route, Routes
from worker.routes.schema import Cold, RouteEntry
from worker.routing.answer import Answer, Unanswered
from worker.routing.execution_context import JobContext, Spend
from worker.routing.planner import Planner
from worker.routing.router import Router

WalkOver = Callable[..., tuple[Answer | Unanswered, list[Attempt]]]


def route(providers: Control, name: str, tier: Any = "hot", **fields: Any) -> Route:
    entry = RouteEntry(provider=name, model="m", base_url="x", **fields)
    return Route(
        name, tier, entry, providers.base_url(name), keys=(Key("sk-test", "environment TEST_KEY"),), account=name
    )


@pytest.fixture
def walk_over(url: str, client: redis.Redis) -> WalkOver:
    """One execution over `routes`, on a worker's breakers; those stand in Redis, for the next one."""

    def walk_over(
        routes: list[Route],
        *,
        seconds: float = 20,
        attempts: int = 30,
        rules: Rules = RULES,
        body: Any = None,
        **more: Any,
    ) -> tuple[Answer | Unanswered, list[Attempt]]:
        async def go() -> tuple[Answer | Unanswered, list[Attempt]]:
            providers = Providers(10)
            connection = connect_async(url, max_connections=2)
            breakers = Breakers(connection, f"test-{uuid4().hex}", [route.name for route in routes], rules)
            await breakers.sync()
            poller = Poller()
            poller.every("breakers", 1.0, breakers.sync, kick=breakers.kick, at_start=False)
            reporting = [asyncio.create_task(service) for service in poller.services()]
            deadline = asyncio.get_running_loop().time() + seconds
            context = JobContext("job", 1, body or chat().body, "key", deadline, **more)
            spend = Spend(attempts)
            try:
                answer = await Router(providers, breakers, lambda: routes).execute(routes, context, spend)
            finally:
                await cancelled(reporting)
                await breakers.sync()
                await providers.close()
                await connection.aclose()
            return answer, [entry for entry in spend.trail if isinstance(entry, Attempt)]

        return asyncio.run(go())

    return walk_over


@pytest.mark.parametrize(
    ("behaviour", "calls"),
    [
        ({"status": 503}, 2),
        ({"status": 429}, 3),
        ({"status": 429, "retry_after": "0"}, 3),
        ({"status": 429, "retry_after": "30"}, 1),
        ({"status": 500}, 2),
        ({"status": 502}, 1),
        ({"status": 401}, 1),
        ({"fault": "reset"}, 1),
        ({"fault": "cut"}, 1),
        ({"fault": "garbage"}, 1),
    ],
)
def test_how_often_a_route_is_asked_before_the_next(
    providers: Control, walk_over: WalkOver, behaviour: dict[str, Any], calls: int
) -> None:
    providers.behave("a", **behaviour)
    answer, trail = walk_over([route(providers, "a"), route(providers, "b", "warm")])
    assert isinstance(answer, Answer)
    assert (answer.route.name, answer.hops) == ("b", 1)
    assert providers.account("a")["asked"] == calls == len(trail) - 1
    assert providers.account("b")["asked"] == 1


def test_a_provider_that_recovers_in_between_is_not_left(providers: Control, walk_over: WalkOver) -> None:
    providers.behave("a", status=503, times=2)
    answer, trail = walk_over([route(providers, "a")])
    assert isinstance(answer, Answer)
    assert (answer.route.name, answer.hops) == ("a", 0)
    assert [attempt.outcome for attempt in trail] == ["unavailable", "unavailable", "ok"]


def test_one_deadline_over_all_leaves_time_for_the_failover(providers: Control, walk_over: WalkOver) -> None:
    providers.behave("a", fault="hang")
    answer, trail = walk_over([route(providers, "a"), route(providers, "b")], seconds=2)
    assert isinstance(answer, Answer)
    assert answer.route.name == "b"
    assert [attempt.outcome for attempt in trail] == ["timeout", "ok"]
    providers.behave("b", fault="drip")
    answer, trail = walk_over([route(providers, "a"), route(providers, "b")], seconds=1)
    assert isinstance(answer, Unanswered)
    assert [attempt.outcome for attempt in trail] == ["timeout", "timeout"]
    assert all(attempt.ambiguous for attempt in trail)


def test_a_silence_forced_by_a_short_deadline_is_not_held_against_the_route(
    providers: Control, walk_over: WalkOver, client: redis.Redis
) -> None:
    providers.behave("a", fault="hang")
    walk_over([route(providers, "a")], seconds=0.2, rules=Rules(failures=1))
    assert of_routes(client, ["a"])["a"].breaker == "closed"
    walk_over([route(providers, "a", timeout_seconds=0.2)], seconds=5, rules=Rules(failures=1))
    assert of_routes(client, ["a"])["a"].breaker == "open"


def test_attempts_have_a_hard_cap_that_failover_does_not_reset(providers: Control, walk_over: WalkOver) -> None:
    for name in ("a", "b"):
        providers.behave(name, status=503)
    answer, trail = walk_over([route(providers, "a"), route(providers, "b")], attempts=4)
    assert isinstance(answer, Unanswered)
    assert [attempt.route for attempt in trail] == ["a", "a", "b", "b"]


def test_an_open_breaker_is_passed_over_without_a_call(providers: Control, walk_over: WalkOver) -> None:
    providers.behave("a", status=502)
    for _ in range(2):
        walk_over([route(providers, "a"), route(providers, "b")], rules=Rules(failures=1))
    assert providers.account("a")["asked"] == 1
    assert providers.account("b")["asked"] == 2


def test_only_a_larger_context_is_tried_after_one_was_too_small(providers: Control, walk_over: WalkOver) -> None:
    error = {"message": "prompt is too long", "code": "context_length_exceeded"}
    providers.behave("a", status=400, error=error)
    routes = [
        route(providers, "a", context_window=100),
        route(providers, "b", context_window=100),
        route(providers, "c", context_window=200),
    ]
    answer, _ = walk_over(routes)
    assert isinstance(answer, Answer)
    assert answer.route.name == "c"
    assert providers.account("b")["asked"] == 0


@pytest.mark.parametrize(
    ("body", "needs"),
    [
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "json_mode"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "vision"),
    ],
)
def test_a_route_that_lacks_what_the_job_asks_for_is_not_called(
    providers: Control, body: dict[str, Any], needs: str
) -> None:
    job = chat().model_copy(update={"body": {"messages": [{"role": "user", "content": "x"}], **body}})
    able, unable = route(providers, "able", capabilities=(needs,)), route(providers, "unable", capabilities=())
    unknown = route(providers, "unknown")
    planned = Planner(Routes((unable, able, unknown), (), Cold()), Routing(), {}).plan("id", job, job.body)
    assert planned.candidates == (able, unknown)
    assert [(rejected.route.name, rejected.reason) for rejected in planned.rejected] == [("unable", f"lacks {needs}")]


@pytest.mark.parametrize("retries", [0, 1, 2, 4])
def test_so_many_retries_configured_are_so_many_requests(providers: Control, walk_over: WalkOver, retries: int) -> None:
    providers.behave("a", status=429)
    walk_over([route(providers, "a", retries=retries)])
    assert providers.account("a")["asked"] == 1 + retries


def test_a_refused_key_gives_way_to_the_next_one_at_once(
    providers: Control, walk_over: WalkOver, client: redis.Redis
) -> None:
    providers.behave("a", keys=["sk-good"])
    two_keys = replace(route(providers, "a"), keys=parsed("sk-bad, sk-good", "environment TEST_KEY", "TEST_KEY"))
    answer, trail = walk_over([two_keys, route(providers, "b")])
    assert isinstance(answer, Answer)
    assert (answer.route.name, [entry.outcome for entry in trail]) == ("a", ["unauthorized", "ok"])
    assert of_routes(client, ["a"])["a"].rests_for is None
    assert "sk-bad" not in str(trail)


def test_with_no_key_left_every_route_of_the_account_rests(
    providers: Control, walk_over: WalkOver, client: redis.Redis
) -> None:
    providers.behave("a", keys=["sk-other"])
    routes = [replace(route(providers, name), account="one") for name in ("a", "b")] + [route(providers, "c")]
    answer, trail = walk_over(routes)
    assert isinstance(answer, Answer)
    assert (answer.route.name, [entry.route for entry in trail]) == ("c", ["a", "c"])
    assert [stands.rests_for for stands in of_routes(client, ["a", "b", "c"]).values()] == ["unauthorized"] * 2 + [None]


def test_a_parameter_that_the_route_does_not_know_is_dropped_once_and_told(
    providers: Control, walk_over: WalkOver
) -> None:
    providers.behave("a", unknown=["seed", "user"])
    body = {**chat().body, "seed": 7, "user": "u", "temperature": 0}
    answer, trail = walk_over([route(providers, "a")], body=body)
    assert isinstance(answer, Answer)
    told = [(entry.outcome, (entry.detail or "").partition(":")[0]) for entry in trail]
    assert told == [("unsupported_parameter", "dropped seed"), ("unsupported_parameter", "dropped user"), ("ok", "")]


def test_a_cap_on_tokens_is_renamed_and_never_dropped(providers: Control, walk_over: WalkOver) -> None:
    providers.behave("a", unknown=["max_tokens"])
    providers.behave("b", unknown=["max_tokens", "max_completion_tokens"])
    body = {**chat().body, "max_tokens": 5}
    answer, trail = walk_over([route(providers, "b"), route(providers, "a")], body=body)
    assert isinstance(answer, Answer)
    assert [(entry.route, entry.outcome) for entry in trail] == [
        ("b", "unsupported_parameter"),
        ("b", "unsupported_parameter"),
        ("a", "unsupported_parameter"),
        ("a", "ok"),
    ]
    assert (trail[2].detail or "").startswith("sent max_tokens as max_completion_tokens")


def test_a_refusal_goes_elsewhere_only_if_the_policy_says_so(providers: Control, walk_over: WalkOver) -> None:
    providers.behave("a", finish_reason="content_filter")
    routes = [route(providers, "a"), route(providers, "b")]
    answer, _ = walk_over(routes)
    assert isinstance(answer, Unanswered)
    assert providers.account("b")["asked"] == 0
    answer, _ = walk_over(routes, failover_on_refusal=True)
    assert isinstance(answer, Answer)
    assert answer.route.name == "b"


TEXT = "the quick brown fox jumps over the lazy dog"
STREAMS: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"fault": "no_done"}, None),
    ({"fault": "bad_event"}, None),
    ({"chunks": 40}, None),
    ({"first_token": 5}, "slow_first_token"),
    ({"fault": "keep_alive"}, "slow_first_token"),
    ({"fault": "hang"}, "slow_first_token"),
    ({"fault": "stall"}, "stalled"),
    ({"fault": "cut"}, "stream_cut"),
    ({"fault": "reset"}, "reset"),
    ({"fault": "garbage"}, "malformed_answer"),
    ({"status": 502}, "bad_gateway"),
    ({"finish_reason": "content_filter"}, "content_filter"),
]


@pytest.mark.parametrize(("behaviour", "failure"), STREAMS)
def test_a_stream_is_one_answer_or_none(
    providers: Control, walk_over: WalkOver, behaviour: dict[str, Any], failure: str | None
) -> None:
    providers.behave("a", text=TEXT, **behaviour)
    answer, trail = walk_over([route(providers, "a", stream_timeout_seconds=0.5)], attempts=1)
    assert [entry.outcome for entry in trail] == [failure or "ok"]
    if failure is not None:
        assert isinstance(answer, Unanswered)
        return
    assert isinstance(answer, Answer)
    if behaviour.get("fault") == "bad_event":
        assert (trail[0].detail or "").startswith("1 events of the stream could not be read")
    assert answer.completion["choices"][0]["message"] == {"role": "assistant", "content": TEXT}
    assert answer.completion["choices"][0]["finish_reason"] == "stop"
    assert answer.completion["usage"]["completion_tokens"] == len(TEXT) // 4
    assert answer.completion["object"] == "chat.completion"


def test_the_policy_may_ask_for_a_stream_too(providers: Control, walk_over: WalkOver) -> None:
    providers.behave("a", first_token=30)
    providers.behave("b", chunks=10, chunk_gap=0.1)  # longer than the limit in all, never in one silence
    answer, trail = walk_over([route(providers, "a"), route(providers, "b")], first_token_seconds=0.5)
    assert isinstance(answer, Answer)
    assert [(entry.route, entry.outcome) for entry in trail] == [("a", "slow_first_token"), ("b", "ok")]


def test_a_probe_that_had_to_be_corrected_is_sent_again_as_the_same_probe(
    providers: Control, walk_over: WalkOver, client: redis.Redis
) -> None:
    rules = Rules(failures=1, cooldown_seconds=0.05)
    providers.behave("a", status=502)
    two_keys = replace(route(providers, "a"), keys=parsed("sk-bad, sk-good", "environment TEST_KEY", "TEST_KEY"))
    walk_over([two_keys], rules=rules)
    providers.behave("a", keys=["sk-good"], unknown=["seed"])
    until(lambda: of_routes(client, ["a"])["a"].breaker == "half-open", "the cooldown is over")
    answer, trail = walk_over([two_keys], rules=rules, body={**chat().body, "seed": 1})
    assert isinstance(answer, Answer)
    assert [(entry.outcome, entry.probe) for entry in trail] == [
        ("unauthorized", True),
        ("unsupported_parameter", True),
        ("ok", True),
    ]


def test_a_route_that_was_closed_off_may_be_able_to_what_the_others_are_not(
    providers: Control, walk_over: WalkOver
) -> None:
    providers.behave("a", status=429, retry_after="60")
    routes = [route(providers, "a"), route(providers, "b")]
    walk_over(routes)
    providers.behave("b", context=1)
    answer, _ = walk_over(routes)
    assert isinstance(answer, Unanswered)
    assert [failure.code for failure in answer.failures] == ["context_length"]
    assert answer.passed_over is not None
    assert answer.passed_over > 50


def test_calls_of_tools_survive_a_stream() -> None:
    assembly = Assembly()
    pieces = [
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}],
        [{"index": 0, "function": {"arguments": ": 1}"}}],
        [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}],
        [{"index": 0, "id": "c", "function": {"name": "h", "arguments": "{}"}}],  # numbered wrongly
    ]
    for piece in pieces:
        assembly.add(
            json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": piece}, "finish_reason": ""}]}).encode()
        )
    before = assembly.finished
    assembly.add(b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}')
    assert (before, assembly.finished) == (False, True)
    (choice,) = assembly.completion()["choices"]
    calls = [(call["id"], call["function"]["arguments"]) for call in choice["message"]["tool_calls"]]
    assert calls == [("a", '{"x": 1}'), ("b", "{}"), ("c", "{}")]
