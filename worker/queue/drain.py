"""The drain: running jobs get some time to end; those that do not end return to the head of the queue, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from worker.queue.claim import Claim
from worker.queue.outcomes import Executed, given_back

RELEASE_SECONDS = 2.0  # after the drain's time is over: for releasing the jobs that did not end


@dataclass
class Execution:
    """One execution that runs in this worker."""

    claim: Claim
    task: asyncio.Task[None]
    executed: Executed | None = None
    settling: bool = False  # its outcome is being written: cancelling now would lose it
    lost: bool = False  # this worker no longer holds the lease


async def let_end(
    executions: Sequence[Execution],
    settle: Callable[[Claim, Executed], Coroutine[Any, Any, None]],
    seconds: float,
    hurried: asyncio.Event,
) -> None:
    """Wait at most `seconds`, or until `hurried`, for `executions` (in the order claimed) to end; release the others."""
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
