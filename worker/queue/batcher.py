"""Group commit: commands that are sent close together share one round trip to Redis.

Outcomes, ledger rows and cache look-ups are sent through it. Every script is idempotent when it is sent again, so a
command that must not be lost (`until_answered`) waits here while Redis is away and is resent until Redis answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from producer.scripts import Command, run_async, size_of

log = logging.getLogger("failover.worker")

GATHER_SECONDS = 0.01  # how long a command waits for others, so that they share its round trip
WORTH_IT = 2.0  # it waits where so many come in that time: at few a second a wait makes a job late and saves nothing
ENOUGH = 16  # ... and not where so many are there already
RECENT_SECONDS = 0.25  # the time whose commands say how many come
BATCH = 200  # commands per round trip
BATCH_BYTES = 1024 * 1024  # a round trip with more has no further command
LONGEST_RESEND_SECONDS = 2.0

_TRANSIENT = (
    RedisConnectionError,
    RedisTimeoutError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
_NO_REPLY = object()
_TRANSIENT_PREFIXES = ("BUSY", "MISCONF", "NOREPLICAS")


class Pace:
    """Whether things come so close together that it pays to wait GATHER_SECONDS for more of them before a round trip."""

    def __init__(self) -> None:
        self._recent, self._until = 0.0, 0.0  # how many came in about RECENT_SECONDS before that monotonic time

    def came(self, count: int = 1) -> None:
        now = time.monotonic()
        self._recent = self._recent * math.exp((self._until - now) / RECENT_SECONDS) + count
        self._until = now

    def pays(self, at_hand: int) -> bool:
        """`at_hand`: how many would share the round trip now."""
        self.came(0)
        return at_hand < ENOUGH and self._recent * GATHER_SECONDS >= WORTH_IT * RECENT_SECONDS


@dataclass
class Request:
    """One command for Redis.

    `build` makes the command just before it is first sent. `on_reply` is called with the reply, which may be an exception.
    `on_away` is called each time that Redis does not answer. With `until_answered` the command is then sent again;
    without it, `on_reply` gets None.
    """

    build: Callable[[], Command]
    on_reply: Callable[[Any], None]
    on_away: Callable[[], None] | None = None
    until_answered: bool = False
    command: Command | None = None  # set when it has been built

    def built(self) -> Command:
        self.command = self.command or self.build()
        return self.command


class Batcher:
    """The batcher of one worker. Commands are sent while `run` is running. `jitter` returns numbers in 0..1."""

    def __init__(self, client: redis.asyncio.Redis, jitter: Callable[[], float]) -> None:
        self._client, self._jitter = client, jitter
        self._waiting: list[Request] = []
        self._work = asyncio.Event()
        self._pace = Pace()
        self._joined = 0  # what waiting requests carry, beyond one thing each

    def submit(self, request: Request, *, first: bool = False) -> None:
        """Send the request with the next round trip. `first`: ahead of all waiting requests."""
        self._waiting.insert(0 if first else len(self._waiting), request)
        self._pace.came()
        self._work.set()

    def joined(self) -> None:
        """A request that waits, or the next one, carries one thing more."""
        self._joined += 1
        self._pace.came()

    def ask(self, command: Command) -> asyncio.Future[Any]:
        """Send a command once. The future gets the reply, or None if Redis did not answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def replied(reply: Any) -> None:
            if not answer.done():
                answer.set_result(None if isinstance(reply, Exception) else reply)

        self.submit(Request(lambda: command, replied))
        return answer

    def commit(self, call: Command) -> asyncio.Future[Any]:
        """Send a script again and again until Redis answers, however long Redis is away.

        The future raises ResponseError when Redis can never execute it (a key has the wrong type).
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def replied(reply: Any) -> None:
            if answer.done():
                return
            if isinstance(reply, Exception):
                answer.set_exception(reply)
            elif isinstance(reply, bytes):
                answer.set_result(reply)
            else:
                answer.set_exception(ResponseError(str(reply)))

        self.submit(Request(lambda: call, replied, until_answered=True))
        return answer

    async def run(self) -> None:
        pause = GATHER_SECONDS
        while True:
            await self._work.wait()
            if self._pace.pays(len(self._waiting) + self._joined):
                await asyncio.sleep(GATHER_SECONDS)
            if await self._send():
                pause = GATHER_SECONDS
            else:
                pause = min(pause * 2, LONGEST_RESEND_SECONDS) * (0.5 + self._jitter() / 2)
                await asyncio.sleep(pause)
            if not self._waiting:
                self._work.clear()

    async def flush(self) -> None:
        """Send all waiting requests; stop when Redis does not answer."""
        while self._waiting and await self._send():
            pass

    def _next(self) -> list[Request]:
        """Take the requests of one round trip out of the waiting ones."""
        count = size = 0
        for request in self._waiting[:BATCH]:
            if count and size >= BATCH_BYTES:
                break
            count, size = count + 1, size + size_of([request.built()])
        batch, self._waiting, self._joined = self._waiting[:count], self._waiting[count:], 0
        return batch

    async def _send(self) -> bool:
        """Make one round trip. Returns whether Redis answered every command that must be answered."""
        batch = self._next()
        if not batch:
            return True
        try:
            replies = await run_async(self._client, [request.built() for request in batch])
        except RedisError as error:
            waiting = sum(request.until_answered for request in batch)
            log.warning("redis is away, results wait", extra={"results": waiting, "error": str(error)})
            replies = [_NO_REPLY] * len(batch)
        except BaseException:  # cancelled: put them back, `flush` sends them
            self._waiting[:0] = batch
            raise
        again: list[Request] = []
        for request, reply in zip(batch, replies, strict=True):
            if reply is not _NO_REPLY and not _is_transient(reply):
                request.on_reply(reply)
                continue
            if request.on_away:
                request.on_away()
            if request.until_answered:
                again.append(request)
            else:
                request.on_reply(None)
        self._waiting[:0] = again
        return not again


def _is_transient(reply: object) -> bool:
    """Whether a failed command may succeed when it is sent again."""
    return isinstance(reply, _TRANSIENT) or (
        isinstance(reply, Exception) and str(reply).startswith(_TRANSIENT_PREFIXES)
    )
