"""Wake-ups: whoever waits for a job is told when it ends, and when there is more of its live answer.

Scripts publish to the job's channel (lua/shared/leaves.lua). A message may be lost, so waiters also look now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator

import redis.asyncio
from redis.exceptions import RedisError

from producer import keyspace

log = logging.getLogger("failover.producer")

LOOK_SECONDS = 15.0  # after so long without a message waiters look all the same
LOOK_WHILE_AWAY_SECONDS = 0.5  # the same while no messages come
RECONNECT_SECONDS = 1.0
NOBODY = keyspace.job_channel("")  # subscribed to as long as the connection lives; nobody publishes to it


class Watch:
    """The wake-ups of one job for one who waits."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups, self._event = wakeups, asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    async def woken(self, seconds: float) -> None:
        """Wait for a message, at most `seconds`; it may also return early, so look at the job each time."""
        longest = LOOK_SECONDS if self._wakeups.connected else LOOK_WHILE_AWAY_SECONDS
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), min(seconds, longest))
        self._event.clear()


class Wakeups:
    """All wake-ups of one event loop, over one connection of `client`, which has no reply timeout and is closed by `close`."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._watches: dict[str, set[Watch]] = {}  # by channel
        self._subscribed: dict[str, asyncio.Future[None]] = {}  # by channel: set when Redis has confirmed it
        self._messages: redis.asyncio.client.PubSub | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._messages is not None

    @contextlib.asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watch]:
        """From here on no message of the job is missed while the connection lives. Never raises: without a connection the
        watch wakes now and then."""
        channel, watch = keyspace.job_channel(job_id), Watch(self)
        self._watches.setdefault(channel, set()).add(watch)
        try:
            await self._subscribe(channel)
            yield watch
        finally:
            watches = self._watches[channel]
            watches.discard(watch)
            if not watches:
                del self._watches[channel]
                self._subscribed.pop(channel, None)
                if self._messages is not None:
                    with contextlib.suppress(RedisError, OSError):
                        await self._messages.unsubscribe(channel)

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()

    async def _subscribe(self, channel: str) -> None:
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        if self._messages is None:
            return
        confirmed = self._subscribed.get(channel)
        if confirmed is None:
            confirmed = self._subscribed[channel] = asyncio.get_running_loop().create_future()
            with contextlib.suppress(RedisError, OSError):
                await self._messages.subscribe(channel)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(confirmed), RECONNECT_SECONDS)

    async def _read(self) -> None:
        while True:
            try:
                async with self._client.pubsub() as messages:
                    await messages.subscribe(NOBODY, *self._watches)
                    async for message in messages.listen():
                        self._heard(messages, message["type"], message["channel"].decode())
            except (RedisError, OSError) as error:
                log.warning("redis sends no wake-ups, waiting jobs are looked at", extra={"error": str(error)})
            finally:
                self._messages = None
                self._subscribed.clear()
            await asyncio.sleep(RECONNECT_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _heard(self, messages: redis.asyncio.client.PubSub, kind: str, channel: str) -> None:
        if kind == "subscribe":
            self._messages = messages
            if (confirmed := self._subscribed.get(channel)) is not None and not confirmed.done():
                confirmed.set_result(None)
        if kind in ("subscribe", "message"):  # what happened before the subscription is looked at too
            for watch in self._watches.get(channel, ()):
                watch.wake()
