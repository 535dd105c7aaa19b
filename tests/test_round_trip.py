"""Round trips: each caller gets the replies to its own commands, or an error, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, ResponseError

from producer.connection import connect_async
from producer.redis_server.round_trip import round_trip, round_trip_async
from tests.support.proxy import Proxy

READS: Sequence[tuple[Any, ...]] = (
    ("HGETALL", "hash"),
    ("SMEMBERS", "set"),
    ("ZRANGE", "scores", 0, -1),
    ("ZRANGE", "scores", 0, -1, "WITHSCORES"),
    ("ZRANGEBYSCORE", "scores", "-inf", 1.5, "WITHSCORES"),
    ("ZSCORE", "scores", "b"),
    ("SET", "text", "café"),
    ("SET", "text", b"\x00\xff", "NX"),
    ("GET", "text"),
    ("GET", "missing"),
    ("INFO", "server"),
    ("PTTL", "text"),
    ("XRANGE", "stream", "-", "+"),
    ("XREVRANGE", "stream", "+", "-", "COUNT", "1"),
    ("LRANGE", "list", 0, -1),
    ("EXISTS", "text", "missing"),
    ("TIME",),
)


@pytest.fixture
def filled(client: redis.Redis) -> redis.Redis:
    client.hset("hash", mapping={"a": 1, "b": 2.5})
    client.sadd("set", "x", "y")
    client.zadd("scores", {"a": 1, "b": 2.25})
    client.rpush("list", *range(5))
    client.xadd("stream", {"n": 1}, id="1-1")
    return client


def test_replies_are_those_of_redis_pys_pipeline(url: str, filled: redis.Redis) -> None:
    async def scenario() -> None:
        async with connect_async(url) as client:
            ours = await round_trip_async(client, READS)
            pipeline: Any = client.pipeline(transaction=False)
            for words in READS:
                pipeline.execute_command(*words, **({"withscores": True} if "WITHSCORES" in words else {}))
            theirs = await pipeline.execute()
        for words, our, blocking, their in zip(READS, ours, round_trip(filled, READS), theirs, strict=True):
            assert type(our) is type(blocking) is type(their)
            assert our == blocking == their or words[0] in ("INFO", "TIME", "PTTL"), words

    asyncio.run(scenario())


def test_a_failed_command_leaves_the_others_their_replies(url: str, filled: redis.Redis) -> None:
    async def scenario() -> None:
        async with connect_async(url) as client:
            first, failed, last = await round_trip_async(client, [("GET", "none"), ("GET", "hash"), ("LLEN", "list")])
        assert (first, last) == (None, 5)
        assert isinstance(failed, ResponseError)

    asyncio.run(scenario())


def test_what_a_cancelled_caller_asked_is_no_answer_for_the_next_one(
    server: str, url: str, client: redis.Redis
) -> None:
    async def scenario() -> None:
        link = Proxy(Path(server.removeprefix("unix://")), bytes_per_second=20_000)
        client.set("long", "x" * 20_000)
        async with connect_async(link.url, max_connections=1) as ours:
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(round_trip_async(ours, [("GET", "long")]), 0.05)
                assert await round_trip_async(ours, [("ECHO", "mine")]) == [b"mine"]
        link.close()

    asyncio.run(scenario())


def test_callers_wait_for_a_connection_and_are_told_when_none_becomes_free(url: str, client: redis.Redis) -> None:
    async def scenario() -> None:
        async with connect_async(url, max_connections=2) as ours:
            numbers = await asyncio.gather(*(round_trip_async(ours, [("ECHO", str(n))]) for n in range(50)))
            assert numbers == [[str(n).encode()] for n in range(50)]
            pool: Any = ours.connection_pool
            pool.timeout = 0.05
            held = [await pool.get_connection() for _ in range(2)]
            with pytest.raises(RedisConnectionError, match="No connection"):
                await round_trip_async(ours, [("PING",)])
            for each in held:
                await pool.release(each)
            assert await round_trip_async(ours, [("PING",)]) == [True]

    asyncio.run(scenario())


def test_a_connection_that_the_server_closed_is_made_anew(url: str, client: redis.Redis) -> None:
    async def scenario() -> None:
        async with connect_async(url, max_connections=1) as ours:
            assert await round_trip_async(ours, [("CLIENT", "SETNAME", "ours")])
            client.client_kill_filter(_type="normal", skipme=True)
            pool: Any = ours.connection_pool
            connection = await pool.get_connection()
            await pool.release(connection)
            while not await connection.can_read():  # noqa: ASYNC110 - its end is on its way
                await asyncio.sleep(0)
            assert await round_trip_async(ours, [("CLIENT", "GETNAME")]) != [b"ours"]

    asyncio.run(scenario())


def test_clients_that_are_not_ours_are_served_too(url: str, filled: redis.Redis) -> None:
    async def scenario() -> None:
        async with redis.asyncio.Redis.from_url(url, protocol=2) as theirs:
            assert await round_trip_async(theirs, READS[:6]) == expected

    with redis.Redis.from_url(url, protocol=2) as theirs:
        expected = round_trip(theirs, READS[:6])
    assert expected[3] == [(b"a", 1.0), (b"b", 2.25)]
    asyncio.run(scenario())


@pytest.mark.parametrize("word", [True, None, bytearray(b"x"), ["x"]])
def test_a_word_that_cannot_be_sent_is_refused_before_anything_is(url: str, client: redis.Redis, word: object) -> None:
    async def scenario() -> None:
        async with connect_async(url) as ours:
            with pytest.raises(DataError, match="SET"):
                await round_trip_async(ours, [("SET", "a", 1), ("SET", "b", word)])

    with pytest.raises(DataError, match="SET"):
        round_trip(client, [("SET", "a", 1), ("SET", "b", word)])
    asyncio.run(scenario())
    assert client.exists("a", "b") == 0


def test_nothing_to_send_needs_no_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connect_async(f"unix://{tmp_path}/none.sock") as ours:
            assert await round_trip_async(ours, []) == []

    asyncio.run(scenario())


def test_a_pool_that_was_reset_has_all_its_places(url: str, client: redis.Redis) -> None:
    async def scenario() -> None:
        async with connect_async(url, max_connections=1) as ours:
            pool: Any = ours.connection_pool
            held = await pool.get_connection()
            pool.reset()
            assert await round_trip_async(ours, [("PING",)]) == [True]
            await held.disconnect()

    asyncio.run(scenario())


def test_without_a_server_a_round_trip_fails_and_keeps_no_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connect_async(f"unix://{tmp_path}/none.sock", max_connections=1) as ours:
            for _ in range(3):
                with pytest.raises(RedisConnectionError):
                    await round_trip_async(ours, [("PING",)])

    asyncio.run(scenario())
