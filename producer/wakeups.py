"""Wake-ups: whoever waits for a job is told when it ends, and when there is more of its live answer.

Scripts publish to the job's channel (lua/shared/leaves.lua). A message may be lost, so waiters also look now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Sequence

import redis.asyncio
from redis.exceptions import RedisError

from producer import keyspace
from producer.redis_server.cancelling import cancelled

log = logging.getLogger("failover.producer")

LOOK_SECONDS = 15.0  # after so long without a message waiters look all the same
LOOK_WHILE_AWAY_SECONDS = 0.5  # the same while no messages come
RECONNECT_SECONDS = 1.0
LEAVE_SECONDS = 0.5  # a channel stays so long after its last watch, so that many are left at once
NOBODY = keyspace.job_channel("")  # subscribed to as long as the connection lives; nobody publishes to it


class Watch:
    """The wake-ups of one job for one who waits."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups, self._event = wakeups, asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    def forget(self) -> None:
        """Forget what has woken it: of a job that is not handed in yet there is no news."""
        self._event.clear()

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
        self._subscribed: set[str] = set()
        self._left: list[str] = []  # channels that nobody watches any more
        self._messages: redis.asyncio.client.PubSub | None = None
        self._reader: asyncio.Task[None] | None = None
        self._leaving: asyncio.Future[None] | None = None

    @property
    def connected(self) -> bool:
        return self._messages is not None

    @contextlib.asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watch]:
        """Wake-ups of the job. The watch is woken once when its subscription is confirmed, as a message may have been missed
        before. Never raises: without a connection the watch wakes now and then."""
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
                if not self._left:
                    asyncio.get_running_loop().call_later(LEAVE_SECONDS, self._leave)
                self._left.append(channel)

    async def close(self) -> None:
        if self._reader is not None:
            await cancelled([self._reader])
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()

    async def _subscribe(self, channel: str) -> None:
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        await self._subscribe_to({channel} - self._subscribed)

    async def _subscribe_to(self, channels: set[str]) -> None:
        if self._messages is not None and channels:
            self._subscribed |= channels
            with contextlib.suppress(RedisError, OSError):
                await self._messages.subscribe(*channels)

    def _leave(self) -> None:
        """Unsubscribe from all channels that were left, at once: their jobs are answered already."""
        gone, self._left = [channel for channel in self._left if channel not in self._watches], []
        self._subscribed.difference_update(gone)
        if self._messages is not None and gone:
            self._leaving = asyncio.ensure_future(self._unsubscribe(self._messages, gone))

    async def _unsubscribe(self, messages: redis.asyncio.client.PubSub, channels: Sequence[str]) -> None:
        with contextlib.suppress(RedisError, OSError):
            await messages.unsubscribe(*channels)

    async def _read(self) -> None:
        while True:
            try:
                async with self._client.pubsub() as messages:
                    self._subscribed = set(self._watches)
                    await messages.subscribe(NOBODY, *self._subscribed)
                    async for message in messages.listen():
                        if self._messages is None:
                            self._messages = messages
                            await self._subscribe_to(set(self._watches) - self._subscribed)  # who came meanwhile
                        self._heard(message["type"], message["channel"].decode())
            except (RedisError, OSError) as error:
                log.warning("redis sends no wake-ups, waiting jobs are looked at", extra={"error": str(error)})
            finally:
                self._messages = None
            await asyncio.sleep(RECONNECT_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _heard(self, kind: str, channel: str) -> None:
        if kind in ("subscribe", "message"):  # what happened before the subscription is looked at too
            for watch in self._watches.get(channel, ()):
                watch.wake()
