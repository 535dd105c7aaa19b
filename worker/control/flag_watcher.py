"""What operators have closed, as one worker knows it: the pause flags, the routes of paused providers, kill switches.

A claim brings the newest word along, a published change is looked at when it comes, and every second the flags are read
anew. The same look keeps the queues' running clocks, by which no pause burns an expiry.
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
    """What a look or a claim asks the flags of, in this order."""

    providers: tuple[str, ...]
    routes: tuple[str, ...]


class FlagWatcher:
    """`changed` is called when anything is closed or let go."""

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
        self.kick = asyncio.Event()  # set: look at once

    def adopt(self, routes: Sequence[Route]) -> None:
        """These are the worker's routes from now on. One that is no longer among them takes no more attempts."""
        self._providers = {route.name: canonical(route.entry.provider) for route in routes}
        self.asked = AskedFlags(tuple(dict.fromkeys(self._providers.values())), tuple(self._providers))
        for name, breaker in self._breakers.items():
            if name not in self._providers:
                breaker.withheld = Withheld(WithheldBy.MAP, name)
            elif breaker.withheld and breaker.withheld.by is WithheldBy.MAP:
                breaker.withheld = None
        self.look_soon()

    def paused(self, queue: str) -> bool:
        """Whether no job of the queue may start, as far as is known."""
        return queue in self._paused

    @property
    def all_paused(self) -> bool:
        """Whether no job of any of the worker's queues may start."""
        return len(self._paused) == len(self._queues)

    def look_soon(self) -> None:
        self.kick.set()

    async def look(self) -> None:
        asked = self.asked
        (flags,) = await ask_async(self._client, [look(self._queues, asked.providers, asked.routes)])
        self.hear(flags, asked)

    def hear(self, flags: Sequence[int], asked: AskedFlags) -> None:
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
        for route, provider in self._providers.items():
            paused = Withheld(WithheldBy.PAUSE, provider) if provider in providers else None
            disabled = Withheld(WithheldBy.KILL_SWITCH, route) if route in routes else None
            self._breakers[route].withheld = disabled or paused
        if self._standing() != before:
            facts = {"everything": everything, "queues": queues, "providers": providers, "routes": routes}
            self._hooks.emit(Event(EventKind.PAUSED if any(facts.values()) else EventKind.RESUMED, "", facts))
            self._changed()

    def _standing(self) -> tuple[object, ...]:
        return (self.all_paused, *(breaker.withheld for breaker in self._breakers.values()))
