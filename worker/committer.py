"""Group commit: outcomes that end close together are settled in one round trip, each by its own atomic script. What is to be
written into the ledger goes along, before them.

A finished result is worth money: while Redis is away it waits here, and is sent again until it is committed or fenced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
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

from producer.scripts import Call, Command, run_async
from worker.budget import Ledger
from worker.transitions import Settled

log = logging.getLogger("failover.worker")

GATHER_SECONDS = 0.01
BATCH = 200
LONGEST_RESEND_SECONDS = 2.0

_PASSES = (
    RedisConnectionError,
    RedisTimeoutError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
_PASSES_TOO = ("BUSY", "MISCONF", "NOREPLICAS")

Waiting = list[tuple[Call, "asyncio.Future[Settled]"]]


class Committer:
    """Settles outcomes for one worker, while `run` runs. `jitter` gives numbers in 0..1."""

    def __init__(self, client: redis.asyncio.Redis, jitter: Callable[[], float], ledger: Ledger) -> None:
        self._client, self._jitter, self._ledger = client, jitter, ledger
        self._waiting: Waiting = []
        self._asked: list[tuple[Command, asyncio.Future[Any]]] = []
        self._work = asyncio.Event()
        ledger.wake = self._work.set

    async def settle(self, call: Call) -> Settled:
        """Commit one outcome; returns once Redis has said what became of it, however long Redis is away.

        Raises ResponseError when Redis can never take it (a key of a wrong type): the lease then runs out.
        """
        done: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, done))
        self._work.set()
        return await done

    def ask(self, command: Command) -> asyncio.Future[Any]:
        """Send a command along, once; its reply, or None where Redis gave none."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append((command, answer))
        self._work.set()
        return answer

    async def run(self) -> None:
        pause = GATHER_SECONDS
        while True:
            await self._work.wait()
            await asyncio.sleep(pause)
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            again = await self._send(batch)
            self._waiting[:0] = again
            trouble = bool(again) or self._ledger.waits
            pause = min(pause * 2, LONGEST_RESEND_SECONDS) * (0.5 + self._jitter() / 2) if trouble else GATHER_SECONDS
            if not (self._waiting or self._asked or self._ledger.left):
                self._work.clear()

    async def flush(self) -> None:
        """What the ledger has left to be written, once; raises RedisError."""
        while (call := self._ledger.take()) is not None:
            (reply,) = await run_async(self._client, [call])
            self._ledger.heard(reply)

    async def _send(self, batch: Waiting) -> Waiting:
        """What must be sent again."""
        booked = self._ledger.take()
        asked, self._asked = self._asked, []
        first: list[Command] = [*([] if booked is None else [booked]), *(command for command, _ in asked)]
        if not (first or batch):
            return []
        try:
            replies = await run_async(self._client, [*first, *(call for call, _ in batch)])
        except RedisError as error:
            log.warning("redis is away, results wait", extra={"results": len(batch), "error": str(error)})
            self._ledger.lost()
            _answer(asked, [None] * len(asked))
            return batch
        if booked is not None:
            reply = replies.pop(0)
            if _passes(reply):
                self._ledger.lost()
            else:
                self._ledger.heard(reply)
        _answer(asked, replies[: len(asked)])
        del replies[: len(asked)]
        again: Waiting = []
        for (call, done), reply in zip(batch, replies, strict=True):
            if done.done():
                continue
            if isinstance(reply, bytes):
                done.set_result(Settled(reply.decode()))
            elif _passes(reply):
                again.append((call, done))
            else:
                done.set_exception(reply if isinstance(reply, Exception) else ResponseError(str(reply)))
        return again


def _answer(asked: Sequence[tuple[Command, asyncio.Future[Any]]], replies: Sequence[Any]) -> None:
    for (_, answer), reply in zip(asked, replies, strict=True):
        if not answer.done():
            answer.set_result(None if isinstance(reply, Exception) else reply)


def _passes(reply: object) -> bool:
    """Whether a failed script may be sent again with a better end."""
    return isinstance(reply, _PASSES) or (isinstance(reply, Exception) and str(reply).startswith(_PASSES_TOO))
