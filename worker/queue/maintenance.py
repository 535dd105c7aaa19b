"""A worker's maintenance of the queue: receive messages, extend its leases, reap expired leases, promote due jobs.

Every worker does all of it, so no separate scheduler process has to run.
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
from producer.scripts import Command, although_full, ask_async
from worker.poller import SLOW_SECONDS, Poller
from worker.queue import fair_queue, transitions

log = logging.getLogger("failover.worker")

HEARTBEAT_SECONDS = 4.0
REAP_SECONDS = 2.0
PROMOTE_SECONDS = 1.0
EXPIRE_SECONDS = 5.0
AUDIT_SECONDS = 300
AUDIT_AT_MOST = 200_000  # queued jobs; with more, the audit is skipped because reading them all takes too long
AUDIT_CHUNK = 20  # stray jobs per script call, because the script searches the whole list for each
PAGE = 5000
RECONNECT_SECONDS = 2.0


def poll(
    poller: Poller, client: redis.asyncio.Redis, queues: Sequence[str], beat: Callable[[], Awaitable[None]]
) -> None:
    """Add all maintenance steps to the poller. `beat` sends the worker's heartbeat."""
    reaper = Reaper(client, queues)
    poller.every("heartbeat", HEARTBEAT_SECONDS, beat, on_trouble=reaper.trouble)
    poller.every("reap", REAP_SECONDS, reaper.reap, on_trouble=reaper.trouble)
    poller.every("promote", PROMOTE_SECONDS, partial(promote, client, queues), on_trouble=reaper.trouble)
    poller.every("expire", EXPIRE_SECONDS, partial(expire, client, queues), on_trouble=reaper.trouble)
    # No `on_trouble`: an audit may take long while Redis is well.
    poller.every("audit", AUDIT_SECONDS, partial(audit, client, queues))


@dataclass(frozen=True)
class Heard:
    """The callbacks for each kind of message."""

    wake: Callable[[], None]
    shutdown: Callable[[], None]
    breaker: Callable[[bytes], None]
    control: Callable[[], None]


async def listen(url: str, worker_name: str, heard: Heard) -> None:
    """Receive messages for ever, over a connection of its own: wake-ups, RQ's `shutdown` command, changes of breakers, of
    pauses and of kill switches.

    A lost message delays its effect by about a second, because the worker also polls. No job is lost.
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
    client: redis.asyncio.Redis,
    leases: Mapping[str, Sequence[str]],
    unanswered: str | None,
    also: Iterable[Command],
) -> list[str]:
    """Extend `leases` (by queue), those of the `unanswered` claim too, and send `also` in the same round trip. Returns the
    leases that are lost."""
    extensions = [transitions.extend(queue, members, unanswered) for queue, members in leases.items()]
    replies = await ask_async(client, [*extensions, *also])
    lost: list[str] = []
    for reply in replies[: len(extensions)]:
        lost += [member.decode() for member in reply]
    return lost


class Reaper:
    """Takes jobs back from workers that vanished.

    When Redis itself did not answer for a while, every lease has expired although the workers live. Their waiting
    heartbeats and results must arrive first. So after trouble the reaper pauses for the length of a lease, and a reap that
    was sent before the trouble and arrives after it does nothing.
    """

    def __init__(self, client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
        self._client, self._queues = client, queues
        self._not_before = -math.inf  # monotonic

    def trouble(self) -> None:
        """Redis did not answer, or answered late: reap nothing for the length of a lease."""
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
                log.error(
                    "jobs whose workers vanished too often are dead letters", extra={"queue": queue, **_some(buried)}
                )


def _some(job_ids: list[str]) -> dict[str, object]:
    """Log fields: the number of jobs, and the first ten ids."""
    return {"count": len(job_ids), "jobs": job_ids[:10]}


async def expire(client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
    """Bury the jobs that waited past their expiry."""
    for queue, reply in zip(queues, await ask_async(client, [transitions.expire(q) for q in queues]), strict=True):
        if reply:
            log.error("jobs waited past their expiry and are dead letters", extra={"queue": queue, "jobs": len(reply)})


async def promote(client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
    """Move the scheduled jobs that are due back to their queue."""
    await ask_async(client, [transitions.promote(queue) for queue in queues])


async def audit(client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
    """Last safety check, by one worker at a time: queue accepted jobs again that are in no list, and remove old entries."""
    for queue in queues:
        turn = although_full(("SET", keyspace.audit_turn(queue), "1", "NX", "EX", AUDIT_SECONDS - 10))
        ((is_mine,),) = await ask_async(client, [turn])
        if is_mine:
            await _trim(client, queue)
            strays = await _nowhere(client, queue)
            if not strays:
                continue
            queued: list[str] = []
            for start in range(0, len(strays), AUDIT_CHUNK):
                (reply,) = await ask_async(client, [transitions.audit(queue, strays[start : start + AUDIT_CHUNK])])
                queued += [job_id.decode() for job_id in reply[0]]
            if queued:
                log.error("jobs that were in no list are queued again", extra={"queue": queue, **_some(queued)})


async def _trim(client: redis.asyncio.Redis, queue: str) -> None:
    """Remove registry entries past their retention (as RQ's own tools do) and index entries of letters that are gone."""
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
    """Accepted jobs that seem to be in no list, lease or schedule. The audit script checks each again before it acts."""
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
