"""What operators have closed, as one worker knows it: the pause flags, the routes of paused providers, kill switches.

A claim brings the newest word along, a published change is looked at when it comes, and every second the flags are read
anew. The same look keeps the queues' running clocks, by which no pause burns an expiry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import redis.asyncio
from redis.exceptions import RedisError

from producer.scripts import ask_async
from worker.breakers.shared import SharedBreaker
from worker.control.admission import Gate
from worker.control.pause import look
from worker.routes.names import canonical
from worker.routes.route import Route

log = logging.getLogger("failover.worker")

LOOK_SECONDS = 1.0
LEFT = "no longer in routes.json"  # why such a route takes no more attempts


@dataclass(frozen=True)
class Asked:
    """What a look or a claim asks the flags of, in this order."""

    providers: tuple[str, ...]
    routes: tuple[str, ...]


class Controls:
    """`changed` is called when anything is closed or let go."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        queues: Sequence[str],
        breakers: Mapping[str, SharedBreaker],
        gate: Gate,
        changed: Callable[[], None],
    ) -> None:
        self._client, self._queues, self._breakers = client, queues, breakers
        self._gate, self._changed = gate, changed
        self.asked = Asked((), ())
        self._providers: dict[str, str] = {}  # by route
        self._paused: set[str] = set()
        self._kick = asyncio.Event()

    def adopt(self, routes: Sequence[Route]) -> None:
        """These are the worker's routes from now on. One that is no longer among them takes no more attempts."""
        self._providers = {route.name: canonical(route.entry.provider) for route in routes}
        self.asked = Asked(tuple(dict.fromkeys(self._providers.values())), tuple(self._providers))
        for name, breaker in self._breakers.items():
            if name not in self._providers:
                breaker.withheld, breaker.disabled = LEFT, True
            elif breaker.withheld == LEFT:
                breaker.withheld, breaker.disabled = "", False
        self.look_soon()

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
        asked = self.asked
        (flags,) = await ask_async(self._client, [look(self._queues, asked.providers, asked.routes)])
        self.hear(flags, asked)

    def hear(self, flags: Sequence[int], asked: Asked) -> None:
        """How the flags stand: 1 or 0 for everything, for each queue, for each provider and each route that was asked about.

        The reply of a claim that was sent again may be of other routes than are asked about now: the next look tells.
        """
        if asked is not self.asked or len(flags) != 1 + len(self._queues) + len(asked.providers) + len(asked.routes):
            return
        everything, told = bool(flags[0]), iter(flags[1:])
        queues, providers, routes = (
            [name for name, closed in zip(names, told, strict=False) if closed]
            for names in (self._queues, asked.providers, asked.routes)
        )
        before = self._standing()
        self._paused = {name for name in self._queues if everything or name in queues}
        self._gate.paused = len(self._paused) == len(self._queues)
        for route, provider in self._providers.items():
            breaker = self._breakers[route]
            breaker.disabled = route in routes
            why = f"provider {provider} is paused" if provider in providers else ""
            breaker.withheld = f"route {route} is disabled" if breaker.disabled else why
        if self._standing() != before:
            facts = {"everything": everything, "queues": queues, "providers": providers, "routes": routes}
            log.warning("paused" if any(facts.values()) else "resumed", extra=facts)
            self._changed()

    def _standing(self) -> tuple[object, ...]:
        return (self._gate.paused, *(breaker.withheld for breaker in self._breakers.values()))
