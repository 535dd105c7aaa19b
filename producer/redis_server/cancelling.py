"""How to end tasks that call Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

AGAIN_SECONDS = 0.2


async def cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel the tasks until all have ended.

    One cancel is not enough: before Python 3.12 a timeout inside a Redis call (asyncio.wait_for) swallows one that comes when
    its reply does, and an endless task then goes on for ever.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        ended, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
        for task in ended:
            task.cancelled() or task.exception()  # is looked at, so that asyncio does not complain of it
