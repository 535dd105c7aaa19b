"""A drill on real providers: a fault for the jobs of one feature, as long as whoever holds the drill keeps its lease.

`failover drill failover --feature NAME` writes the lease (ops/drills/on_feature.py). Workers look each second; when the lease is
not kept any more, because the drill was killed or Redis is away, the fault is over by the worker's own clock.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import redis.asyncio

from producer import keyspace
from producer.scripts import ask_async
from worker.errors.catalog import Action, Breaker, Failure
from worker.routes.names import canonical
from worker.routes.route import Route

LOOK_SECONDS = 1.0
LEASE_SECONDS = 10.0
FAULTS = {  # what a planted fault looks like to the router; no request is sent, so no account and no breaker hears of it
    "key_revoked": ("unauthorized", 401, "the key is as if revoked"),
    "blocked": ("unreachable", None, "no connection, as if egress was cut"),
    "first_token_late": ("slow_first_token", None, "no first token, as if the limit was absurdly low"),
}


@dataclass(frozen=True)
class HeldDrill:
    """`provider`: whose routes fail; `fault`: one of FAULTS; `until`: the end of the lease on the monotonic clock."""

    feature: str
    provider: str
    fault: str
    until: float


class DrillWatcher:
    """One worker's view of the drill, if one is held."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._held: HeldDrill | None = None

    async def look(self) -> None:
        """Read it from Redis. Raises RedisError; the lease that was read last ends all the same."""
        asked = time.monotonic()
        note, left_ms = await ask_async(self._client, [("GET", keyspace.DRILL), ("PTTL", keyspace.DRILL)])
        self._held = _read(note, asked + min(left_ms / 1000, LEASE_SECONDS))

    def fault_of(self, route: Route, feature: str) -> Failure | None:
        """The fault that is planted for jobs of this feature on this route now."""
        held = self._held
        if held is None or feature != held.feature or canonical(route.entry.provider) != held.provider:
            return None
        if time.monotonic() >= held.until:
            self._held = None
            return None
        code, status, what = FAULTS[held.fault]
        return Failure(code, Action.FAILOVER, Breaker.NEUTRAL, status=status, detail=f"a drill: {what}")


def _read(note: bytes | None, until: float) -> HeldDrill | None:
    """None for no drill, and for a note that is none: a drill that cannot be read breaks nothing."""
    try:
        found = json.loads(note or b"null")
        held = HeldDrill(found["feature"], found["provider"], found["fault"], until)
    except (ValueError, TypeError, KeyError):
        return None
    return held if held.feature and held.fault in FAULTS else None
