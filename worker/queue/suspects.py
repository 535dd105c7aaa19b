"""Jobs whose worker vanished: one of them may be what killed it. They run few at a time, so that only that one is charged.

A worker starts them one at a time, and twice as many at once after each that ends (most workers are killed by a deploy or by
the platform, so most suspects are innocent). A job that was suspect twice runs with no other suspect beside it. Redis is told
of each start; the reaper then charges a job only if it ran alone among suspects when its worker vanished (lua/reap.lua).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from worker.queue.claim import Claim

CALM_SECONDS = 15.0  # a suspect that has run for so long is no reason to keep others waiting


class Suspects:
    """The suspects of one worker. `tell` writes to Redis that these run: one alone (True), or all of them together."""

    def __init__(self, tell: Callable[[Sequence[Claim], bool], Awaitable[None]]) -> None:
        self._tell = tell
        self._width = 1  # how many may run at once
        self._running: dict[str, Claim] = {}  # by lease
        self._waiting: deque[tuple[Claim, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """How many are claimed and have not begun."""
        return len(self._waiting)

    async def turn(self, claim: Claim) -> None:
        """Wait until `claim` may run. Call `ended` in any case."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((claim, turn))
        self._admit()
        await turn
        running = list(self._running.values())
        await self._tell(running, len(running) == 1)

    def ended(self, claim: Claim) -> None:
        """`claim` runs no more, or was given up before it began."""
        if self._running.pop(claim.lease, None) is not None:
            self._width *= 2
        else:
            self._waiting = deque(entry for entry in self._waiting if entry[0].lease != claim.lease)
        if not self._running and not self._waiting:
            self._width = 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            claim, turn = self._waiting[0]
            exclusive = claim.suspect > 1 or any(held.suspect > 1 for held in self._running.values())
            if len(self._running) >= (1 if exclusive else self._width):
                return
            self._waiting.popleft()
            if not turn.done():  # it is, if it was cancelled
                self._running[claim.lease] = claim
                turn.set_result(None)
                asyncio.get_running_loop().call_later(CALM_SECONDS, self._calm, claim.lease)

    def _calm(self, lease: str) -> None:
        if lease in self._running:
            self._width *= 2
            self._admit()
