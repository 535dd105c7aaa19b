"""How the time of an execution is shared between routes, as a table; and one slow call over real HTTP."""

from __future__ import annotations

import asyncio

import pytest
import redis

from ops.simulators.provider import Control
from producer.connection import connect_async
from tests.support.jobs import chat
from worker.breakers.registry import Breakers
from worker.providers import Providers
from worker.routes.route import Route
from worker.routes.schema import RouteEntry
from worker.routing.answer import Answer
from worker.routing.call_time import call_seconds, cut_routes
from worker.routing.execution_context import JobContext, Spend
from worker.routing.router import Router


def entry(timeout: float | None = None, name: str = "a") -> RouteEntry:
    said = {} if timeout is None else {"timeout_seconds": timeout}
    return RouteEntry(provider=name, model="m", base_url="x", **said)  # type: ignore[arg-type]


def route(timeout: float | None, name: str) -> Route:
    return Route(name, "hot", entry(timeout, name), "http://x")


@pytest.mark.parametrize(
    ("left", "whole", "own", "others", "seconds"),
    [
        (600, 600, 600, [600], 600),  # no other could finish in the half
        (598, 600, 600, [600], 598),
        (450, 600, 600, [600], 450),  # nor after a first failure
        (600, 600, 400, [400], 400),
        (600, 600, 600, [], 600),
        (600, 600, 600, [200], 400),  # the other gets what it needs
        (600, 600, 600, [600, 200], 400),
        (600, 600, 600, [None], 540),  # the default is 60 s
        (100, 100, 60, [30], 60),
        (20, 20, None, [None], 10),  # nobody said how long a call takes: half for the failover
        (20, 20, 60, [60], 10),  # the job's deadline is shorter than any call: the policy wants the failover
        (120, 120, None, [None], 60),
    ],
)
def test_what_one_call_may_take(
    left: float, whole: float, own: float | None, others: list[float | None], seconds: float
) -> None:
    assert call_seconds(left, whole, entry(own), [entry(other) for other in others]) == seconds


def test_a_route_whose_time_no_job_type_gives_is_named() -> None:
    routes = [route(600, "slow"), route(200, "quick")]
    assert list(cut_routes(routes, {"default": 600, "short": 30})) == [
        (
            "slow",
            "its timeoutSeconds is 600, but a call is cut after 400 s at most while another route is open (job type default, "
            "deadline_seconds 600) — raise deadline_seconds in policies/jobs.yaml, or lower timeoutSeconds",
        )
    ]
    assert list(cut_routes(routes, {"default": 800})) == []
    assert list(cut_routes([route(600, "slow"), route(600, "slow-too")], {"default": 600})) == []
    assert list(cut_routes([route(None, "default")], {"short": 30})) == []
    assert [name for name, _ in cut_routes([route(600, "slow")], {"default": 120})] == ["slow"]


def test_a_call_longer_than_half_of_the_deadline_is_answered_by_the_first_of_two_slow_routes(
    providers: Control, url: str, client: redis.Redis
) -> None:
    providers.behave("a", latency=(1.2, 1.2))
    routes = [
        Route("a", "hot", entry(2), providers.base_url("a")),
        Route("b", "warm", entry(2), providers.base_url("b")),
    ]

    async def go() -> Answer | object:
        connection, calls = connect_async(url, max_connections=2), Providers(4)
        breakers = Breakers(connection, "test", ["a", "b"])
        await breakers.sync()
        deadline = asyncio.get_running_loop().time() + 2
        context = JobContext("job", 1, chat().body, "key", deadline, seconds=2)
        try:
            return await Router(calls, breakers, lambda: routes).execute(routes, context, Spend(3))
        finally:
            await breakers.sync()
            await calls.close()
            await connection.aclose()

    answer = asyncio.run(go())
    assert isinstance(answer, Answer)
    assert answer.route.name == "a"
    assert providers.account("b")["asked"] == 0
