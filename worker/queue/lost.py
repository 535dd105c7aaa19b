"""Lost jobs: accepted ones that left the queue without an outcome, because another tool deleted or overwrote their data.

They are written by lua/shared/lost.lua, and kept until a person discards them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from producer import keyspace
from producer.results import lost_facts
from producer.scripts import Script, ask

_DISCARD = Script.load(Path(__file__).parent / "lua", "discard_lost")
OTHERS = "(others)"  # counts those beyond what is listed


@dataclass(frozen=True)
class Lost:
    """One lost job. `at_ms`: when it was noticed (Unix time), 0 if that is not known."""

    job_id: str
    queue: str
    why: str
    at_ms: int


def count(client: redis.Redis) -> int:
    """How many jobs are lost, and not discarded."""
    length, others = ask(client, [("HLEN", keyspace.LOST), ("HGET", keyspace.LOST, OTHERS)])
    return int(length) + (int(others) - 1 if others else 0)


def some(client: redis.Redis, at_most: int) -> list[Lost]:
    """Some of them, without order: reading a few is cheap."""
    (pairs,) = ask(client, [("HRANDFIELD", keyspace.LOST, at_most, "WITHVALUES")])
    return [
        _read(job_id, text) for job_id, text in zip(pairs[::2], pairs[1::2], strict=True) if job_id != OTHERS.encode()
    ]


def listed(client: redis.Redis, at_most: int) -> list[Lost]:
    """The newest first."""
    (found,) = ask(client, [("HGETALL", keyspace.LOST)])
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    lost = [_read(job_id, text) for job_id, text in pairs if job_id != OTHERS.encode()]
    return sorted(lost, key=lambda each: each.at_ms, reverse=True)[:at_most]


def discard(client: redis.Redis, job_ids: Sequence[str], *, who: str) -> int:
    """Take these out of the list, all of them if there are none. Returns how many. The audit trail says who did it."""
    ids = list(job_ids) or [*(each.job_id for each in listed(client, 1_000_000)), OTHERS]
    (gone,) = ask(client, [_DISCARD.call([keyspace.LOST, keyspace.AUDIT], [who, *ids])])
    return int(gone)


def _read(job_id: bytes, text: bytes) -> Lost:
    return Lost(job_id.decode(errors="replace"), *lost_facts(text))
