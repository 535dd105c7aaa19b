"""The keys of provider accounts: each route is called with the first of its keys that was not refused lately."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from worker.routes import Route


class Keys:
    """What this worker knows of keys. They are told apart by themselves and never shown."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: dict[str, float] = {}  # key -> until when it is passed over

    def of(self, route: Route) -> str:
        """The key to call `route` with; when all were refused, the first one again. Empty: it needs none."""
        return next(self._good(route), route.keys[0] if route.keys else "")

    def refuse(self, key: str, seconds: float) -> None:
        """Pass `key` over for `seconds`."""
        self._refused[key] = self._clock() + seconds

    def any_left(self, route: Route) -> bool:
        """Whether a key of the route was not refused."""
        return next(self._good(route), None) is not None

    def _good(self, route: Route) -> Iterator[str]:
        return (key for key in route.keys if self._refused.get(key, 0.0) <= self._clock())
