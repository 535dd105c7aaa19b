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
from producer.scripts import Command, Gathering, ask_async
from worker.poller import SLOW_SECONDS, Poller
from worker.queue import audit, transitions

log = logging.getLogger("failover.worker")

HEARTBEAT_SECONDS = 4.0
REAP_SECONDS = 2.0
PROMOTE_SECONDS = 1.0
EXPIRE_SECONDS = 5.0
SCRIPTS_AT_MOST = 20  # of one step and queue, each a few milliseconds; what is left waits for the next run of the step
RECONNECT_SECONDS = 2.0
MESSAGES = "messages"  # the poller's name for `listen`


def poll(
    poller: Poller,
    client: redis.asyncio.Redis,
    polled: Gathering,
    queues: Sequence[str],
    beat: Callable[[], Awaitable[None]],
) -> None:
    """Add all maintenance steps to the poller. `beat` sends the worker's heartbeat. `polled`: for what is short."""
    reaper = Reaper(polled, queues)
    poller.every("heartbeat", HEARTBEAT_SECONDS, beat, on_trouble=reaper.trouble)
    poller.every("reap", REAP_SECONDS, reaper.reap, on_trouble=reaper.trouble)
    poller.every("promote", PROMOTE_SECONDS, partial(promote, polled, queues), on_trouble=reaper.trouble)
    poller.every("expire", EXPIRE_SECONDS, partial(expire, polled, queues), on_trouble=reaper.trouble)
    # No `on_trouble`: an audit may take long while Redis is well.
    poller.every("audit", audit.AUDIT_SECONDS, partial(audit.audit, client, queues))
    poller.every("patrol", audit.PATROL_SECONDS, audit.Patrol(client, queues).go)


@dataclass(frozen=True)
class Heard:
    """The callbacks for each kind of message."""

    wake: Callable[[], None]
    shutdown: Callable[[], None]
    breaker: Callable[[bytes], None]
    control: Callable[[], None]


async def listen(url: str, worker_name: str, heard: Heard, poller: Poller) -> None:
    """Receive messages for ever, over a connection of its own: wake-ups, RQ's `shutdown` command, changes of breakers, of
    pauses and of kill switches. `poller` is told whether that works.

    A lost message delays its effect by about a second, because the worker also polls. No job is lost.
    """
    while True:
        client = connect_async(url, max_connections=1, reply_timeout=None)
        try:
            async with client.pubsub() as messages:
                ours = (keyspace.WAKE, keyspace.BREAKERS, keyspace.CONTROL)
                await messages.subscribe(*ours, keyspace.worker_commands(worker_name))
                async for message in messages.listen():
                    if message["type"] != "message":  # it says that a channel is subscribed to
                        poller.works(MESSAGES)
                        continue
                    match message["channel"].decode():
                        case keyspace.WAKE:
                            heard.wake()
                        case keyspace.BREAKERS:
                            heard.breaker(message["data"])
                        case keyspace.CONTROL:
                            heard.control()
                        case _ if _command(message["data"]) == "shutdown":
                            heard.shutdown()
        except (RedisError, OSError) as error:
            poller.failed(MESSAGES, error)
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
    was sent before the trouble and arrives after it does nothing: it names the time at Redis after which it is void, by the
    clock of the reply before.
    """

    def __init__(self, client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
        self._client, self._queues = client, queues
        self._not_before = -math.inf  # monotonic
        self._clock: tuple[float, float] | None = (
            None  # Redis TIME (s) in the last reply, and the monotonic time before it
        )

    def trouble(self) -> None:
        """Redis did not answer, or answered late: reap nothing for the length of a lease."""
        self._not_before = time.monotonic() + transitions.LEASE_SECONDS
        self._clock = None

    async def reap(self) -> None:
        if time.monotonic() < self._not_before:
            return
        began, clock = time.monotonic(), self._clock
        not_after_ms = int(1000 * (clock[0] + began - clock[1] + SLOW_SECONDS)) if clock else 0
        reaps = [transitions.reap(queue, not_after_ms) for queue in self._queues if clock]
        (seconds, micros), *replies = await ask_async(self._client, [("TIME",), *reaps])
        self._clock = (int(seconds) + int(micros) / 1e6, began) if time.monotonic() - began <= SLOW_SECONDS else None
        if clock is None:
            return  # the next one knows the time at Redis
        for queue, first in zip(self._queues, replies, strict=True):
            requeued, buried = list[str](), list[str]()
            reply = first
            for _ in range(SCRIPTS_AT_MOST):
                for ids, more in zip((requeued, buried), reply, strict=True):
                    ids += [job_id.decode() for job_id in more]
                if sum(map(len, reply)) < transitions.REAP_AT_MOST:
                    break
                (reply,) = await ask_async(self._client, [transitions.reap(queue, not_after_ms)])
            if requeued:
                log.warning(
                    "a worker vanished, its jobs are queued again", extra={"queue": queue, **audit.some(requeued)}
                )
            if buried:
                log.error(
                    "jobs whose workers vanished too often are dead letters",
                    extra={"queue": queue, **audit.some(buried)},
                )


async def expire(client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
    """Bury the jobs that waited past their expiry."""
    for queue in queues:
        buried = 0
        for _ in range(SCRIPTS_AT_MOST):
            (ids,) = await ask_async(client, [transitions.expire(queue)])
            buried += len(ids)
            if len(ids) < transitions.EXPIRE_AT_MOST:
                break
        if buried:
            log.error("jobs waited past their expiry and are dead letters", extra={"queue": queue, "jobs": buried})


async def promote(client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
    """Move the scheduled jobs that are due back to their queue."""
    for queue in queues:
        for _ in range(SCRIPTS_AT_MOST):
            (count,) = await ask_async(client, [transitions.promote(queue)])
            if count < transitions.PROMOTE_AT_MOST:
                break
