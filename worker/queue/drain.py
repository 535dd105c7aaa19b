"""The drain: running jobs may end in time, the rest returns to the head of the queue, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from worker.queue.claim import Claim
from worker.queue.outcomes import Executed, given_back

RELEASE_SECONDS = 2.0  # after the drain: to give back what did not end


@dataclass
class Execution:
    """One that runs in a worker."""

    claim: Claim
    task: asyncio.Task[None]
    executed: Executed | None = None
    settling: bool = False  # an outcome is on its way: cancelling would lose it
    lost: bool = False  # the lease went to somebody else


async def let_end(
    executions: Sequence[Execution],
    settle: Callable[[Claim, Executed], Coroutine[Any, Any, None]],
    seconds: float,
    hurried: asyncio.Event,
) -> None:
    """Wait at most `seconds`, or until `hurried`, for `executions` in the order claimed; settle the others as released."""
    hurry: asyncio.Future[Any] = asyncio.create_task(hurried.wait())
    all_ended: asyncio.Future[Any] = asyncio.gather(*(e.task for e in executions), return_exceptions=True)
    await asyncio.wait([hurry, all_ended], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    unfinished = [execution for execution in executions if not execution.task.done() and not execution.settling]
    for execution in unfinished:
        execution.task.cancel()
    if unfinished:
        await asyncio.wait([execution.task for execution in unfinished], timeout=RELEASE_SECONDS)
    released: list[asyncio.Future[Any]] = [
        asyncio.create_task(settle(e.claim, e.executed or given_back(e.claim)))
        for e in reversed(unfinished)
        if not e.lost and not e.settling
    ]
    await asyncio.wait([all_ended, *released], timeout=RELEASE_SECONDS)


async def cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel until it is heard: a cancel that meets a time-out inside a Redis call can be swallowed there."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.2)
