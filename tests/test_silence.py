"""A link that is slow is no Redis that is away: the timeout counts from the last piece that arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis
import redis.asyncio
import redis.exceptions

from producer.connection import connect, connect_async
from producer.scripts import run_async
from tests.support.proxy import Proxy

LARGE = b"x" * 2_000_000
TIMEOUT = 0.25  # seconds; all of LARGE takes four times as long over the link below
SLOW = 2_000_000  # bytes a second


@pytest.fixture
def slow(server: str) -> Proxy:
    return Proxy(Path(server.removeprefix("unix://")), bytes_per_second=SLOW)


def test_a_large_reply_and_a_large_command_arrive_over_a_slow_link(slow: Proxy, client: redis.Redis) -> None:
    async def scenario() -> None:
        patient = connect_async(slow.url, reply_timeout=TIMEOUT)
        await patient.set("large", LARGE)
        assert await patient.get("large") == LARGE
        await run_async(patient, [("SET", "larger", LARGE)])
        assert await run_async(patient, [("GET", "larger"), ("GET", "large")]) == [LARGE, LARGE]
        replies = await run_async(patient, [("PING",), ("SET", "largest", LARGE)])  # the first reply comes early
        assert replies == [True, True]
        await patient.aclose()

    asyncio.run(scenario())
    with connect(slow.url, reply_timeout=TIMEOUT) as patient:
        patient.set("larger", LARGE)
        assert patient.get("larger") == LARGE
    slow.close()


@pytest.mark.parametrize(
    "ask", [lambda patient: patient.get("large"), lambda patient: run_async(patient, [("GET", "large")])]
)
def test_a_redis_that_falls_silent_in_the_middle_of_a_reply_is_away(
    slow: Proxy, client: redis.Redis, ask: Callable[[redis.asyncio.Redis], Awaitable[object]]
) -> None:
    async def scenario() -> None:
        patient = connect_async(slow.url, reply_timeout=TIMEOUT)
        await patient.ping()
        slow.stops_after = 500_000
        with pytest.raises(redis.exceptions.TimeoutError):
            await ask(patient)
        await patient.aclose()

    client.set("large", LARGE)
    asyncio.run(scenario())
    slow.close()
