"""How one worker claims: as many bytes as its link and its memory can take, and again after a lost reply."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import uuid4

import redis.asyncio

from producer.scripts import Gathering, ask_async
from worker.control.flag_watcher import FlagWatcher
from worker.memory import Memory
from worker.queue import transitions
from worker.queue.claim import Claim


class ClaimSize:
    """How many bytes of job data to claim at once: so many that the reply takes about a second over this link at most.

    `most`: bytes that no claim exceeds, however fast the link is.
    """

    FIRST, LEAST = 1024 * 1024, 64 * 1024
    FAST_SECONDS, SLOW_SECONDS = 0.25, 1.0

    def __init__(self, most: int) -> None:
        self._most = most
        self.limit = self.FIRST
        self.reached = False  # whether the last claim stopped at the limit: more jobs may wait

    def learn(self, received: int, seconds: float) -> None:
        """`received`: bytes of job data in the last reply. `seconds`: from the call to the reply."""
        self.reached = received >= self.limit
        if seconds > self.SLOW_SECONDS:
            self.limit = max(self.LEAST, min(self.limit, received) // 2)
        elif self.reached and seconds < self.FAST_SECONDS:
            self.limit = min(self._most, self.limit * 2)


class Claimer:
    """The claims of one worker. `flags` hears the pause flags that come with each reply."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        polled: Gathering,
        worker_name: str,
        queues: Sequence[str],
        flags: FlagWatcher,
        memory: Memory,
    ) -> None:
        self._client, self._polled, self._name, self._queues = client, polled, worker_name, queues
        self._flags, self._memory = flags, memory
        self._size = ClaimSize(transitions.CLAIM_BYTES)
        self._stopped_early = False
        self.unanswered: str | None = None  # the token of a claim whose reply has not arrived

    @property
    def reached_its_size(self) -> bool:
        """Whether the last claim stopped at its limit of bytes, or of entries to remove: more jobs may wait."""
        return self._size.reached or self._stopped_early

    async def claim(self, at_most: int, *, idle: bool = False) -> tuple[Claim, ...]:
        """Claim jobs. `idle`: probably there are none, so the claim shares a round trip with what else is polled.

        After a lost reply the same token is sent again, so that its jobs are not left to the reaper.
        """
        self.unanswered = self.unanswered or uuid4().hex
        asked = self._flags.asked
        call = transitions.claim(
            self.unanswered,
            at_most,
            self._name,
            self._queues,
            asked.providers,
            asked.routes,
            at_most_bytes=self._size.limit,
            at_most_size=self._memory.free,
        )
        began = time.monotonic()
        (reply,) = await ask_async(self._polled if idle else self._client, [call])
        self.unanswered = None
        claims, flags = transitions.claimed(reply)
        self._stopped_early = transitions.stopped_early(reply)
        self._size.learn(sum(len(claim.data) for claim in claims), time.monotonic() - began)
        self._flags.hear(flags, asked)
        return claims
