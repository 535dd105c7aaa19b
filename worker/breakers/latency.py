"""The recent latency of routes, for policies that choose by it; read from the routes' latest calls every two seconds."""

from __future__ import annotations

from collections.abc import Sequence

import redis.asyncio

from producer import keyspace
from producer.scripts import Command, ask_async
from worker.breakers.health import recent_p95_ms

LOOK_SECONDS = 2.0


class Latencies(dict[str, int]):
    """p95 in milliseconds by route; a route with too few calls in the last minutes is not in it."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        super().__init__()
        self._client, self._routes = client, list[str]()

    def adopt(self, routes: Sequence[str]) -> None:
        """Read the latencies of these routes from now on. Pass no routes when no policy uses latencies."""
        self._routes = list(routes)
        for name in self.keys() - set(self._routes):
            del self[name]

    async def look(self) -> None:
        """Read the latencies from Redis. While Redis is away, the last known ones stay. Raises RedisError."""
        routes = self._routes
        if not routes:
            return
        commands: list[Command] = [("LRANGE", keyspace.calls(route), 0, -1) for route in routes]
        (seconds, _), *calls = await ask_async(self._client, [("TIME",), *commands])
        found = {route: recent_p95_ms(made, int(seconds)) for route, made in zip(routes, calls, strict=True)}
        if routes is not self._routes:
            return  # other routes were adopted meanwhile
        self.clear()
        self.update({route: p95 for route, p95 in found.items() if p95 is not None})
