"""What operators have closed, as one worker knows it: the pause flags, and the routes of paused providers.

A claim brings the newest word along, a published change is looked at when it comes, and every second the flags are read
anew. The same look keeps the queues' running clocks, by which no pause burns an expiry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

import redis.asyncio
from redis.exceptions import RedisError

from producer.scripts import ask_async
from worker import transitions
from worker.gate import Gate
from worker.pause import canonical
from worker.routes import Route
from worker.shared_breaker import SharedBreaker

log = logging.getLogger("failover.worker")

LOOK_SECONDS = 1.0


class Controls:
    """`changed` is called when anything is closed or let go."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        queues: Sequence[str],
        routes: Sequence[Route],
        breakers: Mapping[str, SharedBreaker],
        gate: Gate,
        changed: Callable[[], None],
    ) -> None:
        self._client, self._queues, self._breakers = client, queues, breakers
        self._gate, self._changed = gate, changed
        self._routes: dict[str, list[str]] = {}
        for route in routes:
            self._routes.setdefault(canonical(route.entry.provider), []).append(route.name)
        self._paused: set[str] = set()
        self._kick = asyncio.Event()

    @property
    def providers(self) -> list[str]:
        """Those of the worker's routes, in the order in which flags tell of them."""
        return list(self._routes)

    def paused(self, queue: str) -> bool:
        """Whether no job of the queue may start, as far as is known."""
        return queue in self._paused

    def look_soon(self) -> None:
        self._kick.set()

    async def run(self) -> None:
        """Look for ever. While Redis is away, what was last known holds; the rest of the worker tells of it."""
        while True:
            self._kick.clear()
            with contextlib.suppress(RedisError):
                await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._kick.wait()

    async def look(self) -> None:
        (flags,) = await ask_async(self._client, [transitions.look(self._queues, self.providers)])
        self.hear(flags)

    def hear(self, flags: Sequence[int]) -> None:
        """How the flags stand: 1 or 0 for everything, for each queue, for each provider."""
        everything, queues, providers = self._split(flags)
        before = self._standing()
        self._paused = {name for name, paused in zip(self._queues, queues, strict=True) if everything or paused}
        self._gate.paused = len(self._paused) == len(self._queues)
        for (provider, routes), closed in zip(self._routes.items(), providers, strict=True):
            for route in routes:
                self._breakers[route].withheld = f"provider {provider} is paused" if closed else ""
        if self._standing() != before:
            facts = self._facts(flags)
            log.warning("paused" if any(facts.values()) else "resumed", extra=facts)
            self._changed()

    def _split(self, flags: Sequence[int]) -> tuple[bool, list[int], list[int]]:
        first_provider = 1 + len(self._queues)
        return bool(flags[0]), list(flags[1:first_provider]), list(flags[first_provider:])

    def _standing(self) -> tuple[object, ...]:
        return (self._gate.paused, *(breaker.withheld for breaker in self._breakers.values()))

    def _facts(self, flags: Sequence[int]) -> dict[str, object]:
        everything, queues, providers = self._split(flags)
        paused_queues = [name for name, paused in zip(self._queues, queues, strict=True) if paused]
        closed = [name for name, paused in zip(self._routes, providers, strict=True) if paused]
        return {"everything": everything, "queues": paused_queues, "providers": closed}
