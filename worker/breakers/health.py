"""The health of routes, for people: the shared breaker, the cooldown, and the results of the latest calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from producer import keyspace
from producer.scripts import Script, ask

RESTORE = Script.load(Path(__file__).parent / "lua", "restore")

LAST = 20
RECENT_SECONDS = 300.0
RECENT_CALLS = 20


@dataclass(frozen=True)
class Health:
    """The health of one route. Times in seconds or milliseconds, as the names say.

    `breaker`: closed | open | half-open. `reopens_in_seconds`: until it may be called again, None if it may be called now.
    `rests_for`: the reason of its cooldown, None without one. `last`: its latest calls, newest last, 1 for a success.
    `error_rate` (0..1) and the latencies are computed from the latest `calls` calls; None where there were none.
    """

    route: str
    breaker: str
    reopens_in_seconds: float | None
    rests_for: str | None
    last: tuple[int, ...]
    calls: int
    error_rate: float | None
    p50_ms: int | None
    p95_ms: int | None
    recent_p95_ms: int | None = None  # of the last RECENT_SECONDS alone; None with too few calls
    succeeded_ms: int = 0  # Redis TIME of its last success, exact to about a second
    rests_since_ms: int = (
        0  # Redis TIME at which it was first rested for this reason, with no success since; 0: unknown
    )
    probe_ms: int = 0  # Redis TIME of its next probe, the same at each look; 0: the next job makes it, or it runs

    @property
    def serves(self) -> bool:
        """Whether jobs may use the route now."""
        return self.breaker == "closed" and not self.rests_for


def restore(client: redis.Redis, route: str, *, who: str) -> list[str]:
    """Close the route's breaker and end its cooldown, for all workers. Returns what was ended, as text for people."""
    keys = [keyspace.breaker(route), keyspace.AUDIT, keyspace.QUEUES]
    ((state, rested_for),) = ask(client, [RESTORE.call(keys, [route, keyspace.BREAKERS, who])])
    ended = ["its breaker was open"] if state == b"open" else []
    return ended + ([f"it rested for {rested_for.decode(errors='replace')}"] if rested_for else [])


def of_routes(client: redis.Redis, routes: Sequence[str]) -> dict[str, Health]:
    """The health of each route, by name. Makes two round trips, however many routes there are."""
    ((seconds, micros),) = ask(client, [("TIME",)])
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    fields = (
        "state",
        "opens_ms",
        "probe",
        "probe_until_ms",
        "rests_until_ms",
        "rests_for",
        "succeeded_ms",
        "rests_since_ms",
    )
    commands: list[tuple[str | int, ...]] = []
    for route in routes:
        commands.append(("HMGET", keyspace.breaker(route), *fields))
        commands.append(("LRANGE", keyspace.calls(route), 0, -1))
    replies = ask(client, commands)
    breakers, calls = replies[::2], replies[1::2]
    return {
        route: _health(route, now_ms, values, made) for route, values, made in zip(routes, breakers, calls, strict=True)
    }


def _health(route: str, now_ms: int, values: Sequence[bytes | None], made: Sequence[bytes]) -> Health:
    state, opens_ms, probe, probe_until, rests_until, rests_for, succeeded_ms, rests_since_ms = values
    is_open = state == b"open"
    probe_ms = max(_ms(rests_until), _ms(opens_ms) if is_open else 0)
    waits = max(probe_ms, _ms(probe_until) if is_open and probe else 0) - now_ms
    succeeded = [call.startswith(b"+") for call in made]
    latencies = sorted(ms for ms, _ in map(_answered, made) if ms is not None)
    return Health(
        route=route,
        breaker="closed" if not is_open else "half-open" if _ms(opens_ms) <= now_ms else "open",
        reopens_in_seconds=round(waits / 1000, 1) if waits > 0 else None,
        rests_for=rests_for.decode(errors="replace") if rests_for and _ms(rests_until) > now_ms else None,
        last=tuple(int(good) for good in succeeded[LAST - 1 :: -1]),
        calls=len(made),
        error_rate=round(1 - sum(succeeded) / len(made), 3) if made else None,
        p50_ms=_quantile(latencies, 0.5),
        p95_ms=_quantile(latencies, 0.95),
        recent_p95_ms=recent_p95_ms(made, now_ms / 1000),
        succeeded_ms=_ms(succeeded_ms),
        rests_since_ms=_ms(rests_since_ms),
        probe_ms=probe_ms if probe_ms > now_ms else 0,
    )


def recent_p95_ms(made: Sequence[bytes], now: float) -> int | None:
    """The p95 (ms) of a route's successes in the last RECENT_SECONDS; None with fewer than RECENT_CALLS of them.

    Older calls do not count, so a route that was slow becomes unknown and is tried again. `now`: Redis TIME, Unix seconds.
    """
    recent = sorted(ms for ms, at in map(_answered, made) if ms is not None and at > now - RECENT_SECONDS)
    return _quantile(recent, 0.95) if len(recent) >= RECENT_CALLS else None


def _answered(call: bytes) -> tuple[int | None, float]:
    """Reads a call `+ms@s` or `-ms@s`: (its milliseconds, None for a failure; when it was reported, Unix seconds)."""
    ms, _, at = call[1:].partition(b"@")
    return (int(ms) if call.startswith(b"+") else None), float(at or 0)


def _ms(value: bytes | None) -> int:
    return int(float(value or 0))


def _quantile(ordered: Sequence[int], share: float) -> int | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
