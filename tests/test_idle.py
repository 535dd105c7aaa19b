"""A worker without jobs is quiet: few round trips, however much there is to poll; and what changes is still seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from bench.idle import MOST_ROUND_TRIPS
from producer import keyspace
from producer.connection import connect_async
from producer.scripts import Command, Gathering, ask, ask_async, run_async
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.notify.condition import Quiet
from worker.notify.oncall import OnCall

HEARTBEATS = 1  # for which round trips are counted


class Counted:
    """A client whose own round trips are known."""

    def __init__(self, client: redis.Redis) -> None:
        self._client, self._own = client, 0

    def beat(self) -> bytes | None:
        """The time of the worker's last heartbeat."""
        self._own += 1
        (worker,) = self._client.smembers(keyspace.WORKERS)
        self._own += 1
        beat = self._client.hget(worker, "last_heartbeat")
        return beat if isinstance(beat, bytes) else None

    def reads(self) -> tuple[float, int]:
        """Redis TIME in seconds, and the round trips of others so far."""
        self._own += 1
        found = self._client.info()
        return found["server_time_usec"] / 1e6, found["total_reads_processed"] - self._own

    def after_heartbeats(self, count: int) -> None:
        for _ in range(count):
            before = self.beat()
            until(lambda before=before: self.beat() != before, "a heartbeat")  # type: ignore[misc]


def test_an_idle_worker_makes_few_round_trips(workshop: Workshop, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    workshop.policy()
    workshop.worker()
    until(lambda: client.exists(keyspace.NOTIFIER), "the worker leads as the notifier")
    counted = Counted(client)
    counted.after_heartbeats(1)  # the start is over
    began, before = counted.reads()
    counted.after_heartbeats(HEARTBEATS)
    ended, after = counted.reads()
    assert (after - before) / (ended - began) <= MOST_ROUND_TRIPS


def test_callers_of_the_same_moment_share_a_round_trip(client: redis.Redis, url: str) -> None:
    client.set("text", "a")

    async def asked() -> Any:
        async with connect_async(url) as plain:
            await plain.ping()
            polled = Gathering(plain)
            before = client.info("stats")["total_reads_processed"]
            calls = [ask_async(polled, [("GET", "text"), ("ECHO", n)]) for n in range(20)]
            refused = run_async(polled, [("LLEN", "text")])
            *answers, wrong = await asyncio.gather(*calls, refused)
            return answers, wrong, client.info("stats")["total_reads_processed"] - before

    answers, (wrong,), reads = asyncio.run(asked())
    assert answers == [[b"a", str(n).encode()] for n in range(20)]
    assert isinstance(wrong, redis.ResponseError)  # of its own caller alone
    assert reads == 2  # theirs, and that of `before`


def test_trouble_of_redis_reaches_every_caller() -> None:
    async def asked() -> list[object]:
        async with connect_async("redis://127.0.0.1:1") as plain:
            polled = Gathering(plain)
            calls = [ask_async(polled, [("PING",)]) for _ in range(3)]
            return list(await asyncio.gather(*calls, return_exceptions=True))

    assert [type(error) for error in asyncio.run(asked())] == [redis.ConnectionError] * 3


FLOOD = 100  # jobs
QUEUES, ROUTES = ["ai-tasks"], ["openai/a"]
CHANGES: dict[str, list[Command]] = {
    "pause": [("SET", keyspace.PAUSE, "1")],
    "pause of a queue": [("SET", keyspace.pause_of("ai-tasks"), "1")],
    "pause of a tenant": [("HSET", keyspace.PAUSE_NOTES, keyspace.paused_tenant("a"), "{}")],
    "rq suspend": [("SET", keyspace.SUSPENDED, "1")],
    "another queue": [("SADD", keyspace.QUEUES, "rq:queue:other")],
    "a worker": [("SADD", keyspace.WORKERS, keyspace.worker("failover-worker-b"))],
    "a vanished worker": [("DEL", keyspace.worker("failover-worker-a"))],
    "its routes": [("SET", keyspace.routes_of("failover-worker-a"), "{}")],
    "a breaker": [("HSET", keyspace.breaker("openai/a"), "state", "open")],
    "a cooldown": [("HSET", keyspace.breaker("openai/a"), "rests_for", "billing", "rests_until_ms", 1)],
    "billing": [("HSET", keyspace.SPEND, "openai", "{}")],
    "a lost job": [("HSET", keyspace.LOST, "a", "{}")],
    "an incident": [("HSET", keyspace.INCIDENTS, "a", "1")],
    "a resolved incident": [("SADD", keyspace.UNTOLD_INCIDENTS, "1")],
    "a dead letter": [("HSET", keyspace.news("ai-tasks"), "dead", 1)],
    "a late job": [("ZADD", keyspace.promised("ai-tasks"), 1, "a")],
    "tenant queues": [("RPUSH", keyspace.round_robin("ai-tasks"), "")],
    "a long queue": [("RPUSH", keyspace.queue("ai-tasks"), *map(str, range(FLOOD + 1)))],
    "memory": [],
    "a wrong type": [("SET", keyspace.LOST, "text")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_ends_the_quiet(client: redis.Redis, change: str) -> None:
    client.sadd(keyspace.WORKERS, keyspace.worker("failover-worker-a"))
    client.hset(keyspace.worker("failover-worker-a"), "state", "idle")
    quiet = Quiet(client, OnCall(flood_jobs=FLOOD))
    assert not quiet.lasts(QUEUES, ROUTES, ())
    quiet.seen(nothing=True)
    client.hset(keyspace.worker("failover-worker-a"), "last_heartbeat", "later")
    client.hset(keyspace.breaker("openai/a"), "succeeded_ms", 1)
    assert quiet.lasts(QUEUES, ROUTES, ())
    ask(client, CHANGES[change])
    assert not quiet.lasts(QUEUES, ROUTES, (80,) if change == "memory" else ())


def test_it_is_not_quiet_while_something_is_wrong(client: redis.Redis) -> None:
    quiet = Quiet(client, OnCall(flood_jobs=FLOOD))
    for _ in range(2):
        assert not quiet.lasts(QUEUES, ROUTES, ())
        quiet.seen(nothing=False)
