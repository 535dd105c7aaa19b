"""One worker's copy of the flags that operators set: paused queues, paused providers, disabled routes (kill switches).

The flags are read with every claim, when a change is published, and every second. The script that reads them also updates
the queues' running clocks, so that a pause does not shorten the life of a job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import redis.asyncio

from producer.scripts import ask_async
from worker.breakers.shared import SharedBreaker, Withheld, WithheldBy
from worker.control.pause import look
from worker.events import Event, EventKind, Hooks
from worker.routes.names import canonical
from worker.routes.route import Route

log = logging.getLogger("failover.worker")

LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class AskedFlags:
    """The providers and routes whose flags a claim or a look reads, in this order."""

    providers: tuple[str, ...]
    routes: tuple[str, ...]


class FlagWatcher:
    """Reads the flags and applies them to the breakers. `changed` is called when a flag was set or cleared."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        queues: Sequence[str],
        breakers: Mapping[str, SharedBreaker],
        changed: Callable[[], None],
        hooks: Hooks,
    ) -> None:
        self._client, self._queues, self._breakers = client, queues, breakers
        self._changed, self._hooks = changed, hooks
        self.asked = AskedFlags((), ())
        self._providers: dict[str, str] = {}  # by route
        self._paused: set[str] = set()
        self.kick = asyncio.Event()  # set it to read the flags at once

    def adopt(self, routes: Sequence[Route]) -> None:
        """Use these routes from now on. A route that is not among them any more gets no new attempts."""
        self._providers = {route.name: canonical(route.entry.provider) for route in routes}
        self.asked = AskedFlags(tuple(dict.fromkeys(self._providers.values())), tuple(self._providers))
        for name, breaker in self._breakers.items():
            if name not in self._providers:
                breaker.withheld = Withheld(WithheldBy.MAP, name)
            elif breaker.withheld and breaker.withheld.by is WithheldBy.MAP:
                breaker.withheld = None
        self.look_soon()

    def paused(self, queue: str) -> bool:
        """Whether no job of the queue may start, by the flags that were read last."""
        return queue in self._paused

    @property
    def all_paused(self) -> bool:
        """Whether no job of any of the worker's queues may start."""
        return len(self._paused) == len(self._queues)

    def look_soon(self) -> None:
        """Read the flags at once, without waiting for the next second."""
        self.kick.set()

    async def look(self) -> None:
        """Read the flags from Redis and apply them. Raises RedisError."""
        asked = self.asked
        (flags,) = await ask_async(self._client, [look(self._queues, asked.providers, asked.routes)])
        self.hear(flags, asked)

    def hear(self, flags: Sequence[int], asked: AskedFlags) -> None:
        """Apply the flags of a reply: 1 or 0 for everything, then for each queue, and each provider and route of `asked`.

        A claim that was sent again may return the flags of other routes than the present ones. Such a reply is ignored; the
        next look reads the right ones.
        """
        if asked is not self.asked or len(flags) != 1 + len(self._queues) + len(asked.providers) + len(asked.routes):
            return
        everything, values = bool(flags[0]), iter(flags[1:])
        queues, providers, routes = (
            [name for name, is_set in zip(names, values, strict=False) if is_set]
            for names in (self._queues, asked.providers, asked.routes)
        )
        before = self._state()
        self._paused = {name for name in self._queues if everything or name in queues}
        for route, provider in self._providers.items():
            paused = Withheld(WithheldBy.PAUSE, provider) if provider in providers else None
            disabled = Withheld(WithheldBy.KILL_SWITCH, route) if route in routes else None
            self._breakers[route].withheld = disabled or paused
        if self._state() != before:
            facts = {"everything": everything, "queues": queues, "providers": providers, "routes": routes}
            self._hooks.emit(Event(EventKind.PAUSED if any(facts.values()) else EventKind.RESUMED, "", facts))
            self._changed()

    def _state(self) -> tuple[object, ...]:
        """All that a change of the flags can change, for comparison."""
        return (self.all_paused, *(breaker.withheld for breaker in self._breakers.values()))
