"""What a worker does beside executing jobs: listen for wake-ups, keep its leases, reap those of the dead, promote.

Every worker does all of it, so there is no scheduler process to forget.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import redis.asyncio
from redis.exceptions import RedisError

from producer import keyspace
from producer.connection import connect_async
from producer.exchange import KEEP_CANCELLED_SECONDS
from producer.scripts import Command, ask_async
from worker.poller import SLOW_SECONDS, Poller
from worker.queue import fair_queue, transitions

log = logging.getLogger("failover.worker")

HEARTBEAT_SECONDS = 4.0
REAP_SECONDS = 2.0
PROMOTE_SECONDS = 1.0
EXPIRE_SECONDS = 5.0
AUDIT_SECONDS = 300
AUDIT_AT_MOST = 200_000  # queued jobs; a longer list is too much to read in one go
AUDIT_CHUNK = 20  # strays of one script call, which looks through the whole list for each
PAGE = 5000
RECONNECT_SECONDS = 2.0


def poll(
    poller: Poller, client: redis.asyncio.Redis, queues: Sequence[str], beat: Callable[[], Awaitable[None]]
) -> None:
    """Let the poller do all of it; `beat` is the worker's own heartbeat."""
    reaper = Reaper(client, queues)
    poller.every("heartbeat", HEARTBEAT_SECONDS, beat, on_trouble=reaper.trouble)
    poller.every("reap", REAP_SECONDS, reaper.reap, on_trouble=reaper.trouble)
    poller.every("promote", PROMOTE_SECONDS, partial(promote, client, queues), on_trouble=reaper.trouble)
    poller.every("expire", EXPIRE_SECONDS, partial(expire, client, queues), on_trouble=reaper.trouble)
    poller.every("audit", AUDIT_SECONDS, partial(audit, client, queues))  # its length says nothing of Redis


@dataclass(frozen=True)
class Heard:
    """What a worker does on each kind of message."""

    wake: Callable[[], None]
    shutdown: Callable[[], None]
    breaker: Callable[[bytes], None]
    control: Callable[[], None]


async def listen(url: str, worker_name: str, heard: Heard) -> None:
    """Wake-ups, RQ's `shutdown` command, changes of breakers and of what operators closed, over a connection of its own.

    A lost message costs a second, no job.
    """
    while True:
        client = connect_async(url, max_connections=1, reply_timeout=None)
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as messages:
                ours = (keyspace.WAKE, keyspace.BREAKERS, keyspace.CONTROL)
                await messages.subscribe(*ours, keyspace.worker_commands(worker_name))
                async for message in messages.listen():
                    match message["channel"].decode():
                        case keyspace.WAKE:
                            heard.wake()
                        case keyspace.BREAKERS:
                            heard.breaker(message["data"])
                        case keyspace.CONTROL:
                            heard.control()
                        case _ if _command(message["data"]) == "shutdown":
                            heard.shutdown()
        except (RedisError, OSError):
            await asyncio.sleep(RECONNECT_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        finally:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()


def _command(data: bytes) -> str | None:
    try:
        payload = json.loads(data)
    except ValueError:
        return None
    return payload.get("command") if isinstance(payload, dict) else None


async def extend(
    client: redis.asyncio.Redis, leases: Mapping[str, Sequence[str]], also: Iterable[Command]
) -> list[str]:
    """Hold `leases` (by queue) for longer and send `also` in the same round trip; the leases that are lost."""
    held = [(queue, members) for queue, members in leases.items() if members]
    replies = await ask_async(client, [*(transitions.extend(*entry) for entry in held), *also])
    lost: list[str] = []
    for reply in replies[: len(held)]:
        lost += [member.decode() for member in reply]
    return lost


class Reaper:
    """Takes the jobs of vanished workers back.

    When Redis has stood still, every lease has run out and nobody is to blame: heartbeats and results that waited go
    first. So after trouble a reaper holds still for the length of a lease, and a reap that was sent before the trouble
    and arrives after it reaps nothing.
    """

    def __init__(self, client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
        self._client, self._queues = client, queues
        self._not_before = -math.inf  # monotonic

    def trouble(self) -> None:
        self._not_before = time.monotonic() + transitions.LEASE_SECONDS

    async def reap(self) -> None:
        if time.monotonic() < self._not_before:
            return
        began = time.monotonic()
        ((seconds, micros),) = await ask_async(self._client, [("TIME",)])
        if time.monotonic() - began > SLOW_SECONDS:
            return
        not_after_ms = int(seconds) * 1000 + int(micros) // 1000 + int(SLOW_SECONDS * 1000)
        replies = await ask_async(self._client, [transitions.reap(queue, not_after_ms) for queue in self._queues])
        for queue, reply in zip(self._queues, replies, strict=True):
            requeued, buried = ([job_id.decode() for job_id in ids] for ids in reply)
            if requeued:
                log.warning("a worker vanished, its jobs are queued again", extra={"queue": queue, **_some(requeued)})
            if buried:
                log.error("jobs that crash workers are dead letters", extra={"queue": queue, **_some(buried)})


def _some(job_ids: list[str]) -> dict[str, object]:
    """The count, and ids enough to begin with."""
    return {"count": len(job_ids), "jobs": job_ids[:10]}


async def expire(client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
    for queue, reply in zip(queues, await ask_async(client, [transitions.expire(q) for q in queues]), strict=True):
        if reply:
            log.error("jobs waited past their expiry and are dead letters", extra={"queue": queue, "jobs": len(reply)})


async def promote(client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
    await ask_async(client, [transitions.promote(queue) for queue in queues])


async def audit(client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
    """The last net, one worker at a time: accepted jobs that are nowhere are queued again; old entries go."""
    for queue in queues:
        if await client.set(keyspace.audit_turn(queue), "1", nx=True, ex=AUDIT_SECONDS - 10):
            await _trim(client, queue)
            strays = await _nowhere(client, queue)
            if not strays:
                continue
            queued: list[str] = []
            for start in range(0, len(strays), AUDIT_CHUNK):
                (reply,) = await ask_async(client, [transitions.audit(queue, strays[start : start + AUDIT_CHUNK])])
                queued += [job_id.decode() for job_id in reply[0]]
            if queued:
                log.error("jobs were nowhere and are queued again", extra={"queue": queue, **_some(queued)})


async def _trim(client: redis.asyncio.Redis, queue: str) -> None:
    """Registry entries past their retention (RQ's own tools do the same), and index entries of letters that are gone."""
    ((seconds, _),) = await ask_async(client, [("TIME",)])
    registries = (keyspace.finished(queue), keyspace.failed(queue))
    trims: list[Command] = [("ZREMRANGEBYSCORE", name, "-inf", int(seconds)) for name in registries]
    trims.append(("ZREMRANGEBYSCORE", keyspace.canceled(queue), "-inf", int(seconds) - KEEP_CANCELLED_SECONDS))
    *_, indexes, count = await ask_async(
        client, [*trims, ("SMEMBERS", keyspace.dead_indexes(queue)), ("ZCARD", keyspace.dead(queue))]
    )
    for start in range(0, count, PAGE):
        (page,) = await ask_async(client, [("ZRANGE", keyspace.dead(queue), start, start + PAGE - 1)])
        (scores,) = await ask_async(client, [("ZMSCORE", keyspace.failed(queue), *page)]) if page else ([],)
        if gone := [job_id for job_id, score in zip(page, scores, strict=True) if score is None]:
            await ask_async(client, [("ZREM", name, *gone) for name in (keyspace.dead(queue), *indexes)])
    sizes = await ask_async(client, [("ZCARD", name) for name in indexes])
    if empty := [name for name, size in zip(indexes, sizes, strict=True) if size == 0]:
        await ask_async(client, [("SREM", keyspace.dead_indexes(queue), *empty)])


async def _nowhere(client: redis.asyncio.Redis, queue: str) -> list[str]:
    """Accepted jobs that seem to be in no list, lease or schedule; the audit script looks again before it acts."""
    whole = (0, -1)
    accepted_ids, leases, scheduled, (length, _) = await ask_async(
        client,
        [
            ("ZRANGE", keyspace.accepted(queue), *whole),
            ("ZRANGE", keyspace.leases(queue), *whole),
            ("ZRANGE", keyspace.scheduled(queue), *whole),
            fair_queue.length_call(queue),
        ],
    )
    nowhere: set[bytes] = set(accepted_ids)
    if not nowhere or length > AUDIT_AT_MOST:
        return []
    nowhere.difference_update(scheduled, (lease.rpartition(b":")[0] for lease in leases))
    nowhere.difference_update(await fair_queue.ids(client, queue))
    return [job_id.decode() for job_id in nowhere][:PAGE]
