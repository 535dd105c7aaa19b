"""The pause flag `pause_ai_tasks`: who set it, why, since when. Claims read it, so nothing starts after it is set.

Any tool may set the bare flag to "1"; then who and why are simply not known.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import redis

from producer import keyspace
from producer.scripts import ask


@dataclass(frozen=True)
class Paused:
    """One flag that is set. `queue` None: all of them. `since` in Unix seconds."""

    queue: str | None
    who: str | None = None
    why: str | None = None
    since: float | None = None


def pause(client: redis.Redis, *, who: str, why: str, queue: str | None = None) -> None:
    """Set the flag. Running jobs end; no other starts until `resume`. A pause that says why is not overwritten by one
    that does not."""
    if not why and any(flag.queue == queue and flag.why for flag in paused(client, [queue] if queue else [])):
        return
    scope = queue or "*"
    note = (f"{scope}:who", who, f"{scope}:why", why, f"{scope}:since", f"{time.time():.0f}")
    ask(client, [("SET", _flag(queue), "1"), ("HSET", keyspace.PAUSE_INFO, *note)])


def resume(client: redis.Redis, queue: str | None = None) -> bool:
    """Clear the flag and wake the workers; whether it was set."""
    scope = queue or "*"
    with client.pipeline() as pipeline:
        pipeline.getdel(_flag(queue))
        pipeline.hdel(keyspace.PAUSE_INFO, f"{scope}:who", f"{scope}:why", f"{scope}:since")
        pipeline.publish(keyspace.WAKE, "resume")
        before, *_ = pipeline.execute()
    return _set(before)


def paused(client: redis.Redis, queues: Sequence[str]) -> list[Paused]:
    """Every flag that is set: the general one, RQ's `rq suspend`, those of `queues` and of any queue in the notes."""
    raw_notes, suspended = ask(client, [("HGETALL", keyspace.PAUSE_INFO), ("EXISTS", keyspace.SUSPENDED)])
    notes = {key.decode(): value.decode() for key, value in raw_notes.items()}
    noted = {key.rpartition(":")[0] for key in notes} - {"*"}
    scopes: list[str | None] = [None, *sorted(noted | set(queues))]
    flags = ask(client, [("GET", _flag(queue)) for queue in scopes])
    found = []
    for queue, value in zip(scopes, flags, strict=True):
        if isinstance(value, bytes) and _set(value):
            scope = queue or "*"
            since = notes.get(f"{scope}:since")
            who, why = notes.get(f"{scope}:who"), notes.get(f"{scope}:why")
            found.append(Paused(queue, who, why, float(since) if since else None))
    if suspended == 1:
        found.append(Paused(None, "rq", "rq suspend"))
    return found


def _flag(queue: str | None) -> str:
    return keyspace.PAUSE if queue is None else keyspace.pause_of(queue)


def _set(value: bytes | None) -> bool:
    """As claim.lua reads it: absent, empty and "0" are running; anything else is paused."""
    return value is not None and value not in (b"", b"0")
