"""Runs batches: each by one web process at a time, and on by another one if that process dies.

A line's job has an id made of the batch and its place, so submitting it again changes nothing; its answer is added to a file in
the script that counts it. So a batch goes on after any kill, with no line lost, doubled or paid twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from uuid import uuid4

from ops.web.batches import batch_records
from ops.web.batches.batch_run import BatchRun
from ops.web.batches.store import Store
from ops.web.openai.models import Models
from producer import keyspace
from producer.client import AsyncProducer
from producer.errors import FailoverError
from producer.redis_server.cancelling import cancelled

log = logging.getLogger("failover.web.batches")

LOOK_SECONDS = 2.0
AT_ONCE = (
    32  # batches of one process; most of them wait for providers, so that a long outage must not keep new ones out
)
STEPS_AT_ONCE = 4  # of those: a step may read much of a file
HELD_SECONDS = 12  # without a word from its process another one takes a batch


class Runner:
    """The batches of one web process."""

    def __init__(self, producer: AsyncProducer, store: Store, models: Models) -> None:
        self._producer, self._store, self._models = producer, store, models
        self._token = uuid4().hex
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._work = asyncio.Event()
        self._steps = asyncio.Semaphore(STEPS_AT_ONCE)

    def wake(self) -> None:
        """Look for new batches at once."""
        self._work.set()

    async def run(self) -> None:
        """For as long as the process serves."""
        try:
            while True:
                with contextlib.suppress(FailoverError):  # Redis is away: the next look finds them
                    await self._look()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._work.wait(), LOOK_SECONDS)
                self._work.clear()
        finally:
            await cancelled(self._runs.values())

    async def _look(self) -> None:
        """Take batches that nobody runs."""
        (ids,) = await self._producer.send([("SMEMBERS", keyspace.OPEN_BATCHES)])
        for batch_id in sorted(each.decode() for each in ids):
            if len(self._runs) >= AT_ONCE:
                return
            if batch_id not in self._runs and await self._hold(batch_id):
                task = self._runs[batch_id] = asyncio.create_task(self._run(batch_id))
                task.add_done_callback(partial(self._ended, batch_id))

    def _ended(self, batch_id: str, _task: asyncio.Task[None]) -> None:
        self._runs.pop(batch_id, None)
        self._work.set()

    async def _hold(self, batch_id: str) -> bool:
        (ours,) = await self._producer.send([batch_records.holding(batch_id, self._token, HELD_SECONDS)])
        return bool(ours)

    async def _run(self, batch_id: str) -> None:
        run = BatchRun(self._producer, self._store, self._models.routes, batch_id, self._token, HELD_SECONDS)
        try:
            while True:
                async with self._steps:
                    if not await self._hold(batch_id) or await run.step():
                        return
                await asyncio.sleep(run.pause)
        except FailoverError as error:
            log.warning("a batch waits", extra={"batch": batch_id, "error": str(error)})
            await asyncio.sleep(LOOK_SECONDS)
        except Exception:
            log.exception("a batch failed in our own code, it is tried again", extra={"batch": batch_id})
            await asyncio.sleep(HELD_SECONDS)
