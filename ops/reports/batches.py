"""The batches that are under way: those of `failover batch run`, which say so while they wait, and those of /v1/batches."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import redis
from redis.exceptions import RedisError

from producer import keyspace
from producer.scripts import although_full, ask

SAID_EVERY_SECONDS = 5.0
GONE_SECONDS = 60.0  # a command that has not said anything for so long has ended or was killed
LISTED = 50


@dataclass(frozen=True)
class BatchStatus:
    """One batch. `batch`: its id, or its file and who runs the command. `total`: its jobs, of which so many have `ended`."""

    batch: str
    status: str
    total: int
    ended: int

    def __str__(self) -> str:
        return f"{self.batch}: {self.ended:,} of {self.total:,} ended, {self.status.replace('_', ' ')}"


def under_way(client: redis.Redis) -> list[BatchStatus]:
    """The batches that have not ended, at most LISTED of each kind."""
    runs, ids = ask(client, [("HGETALL", keyspace.BATCH_RUNS), ("SRANDMEMBER", keyspace.OPEN_BATCHES, LISTED)])
    found = [_read(name, text) for name, text in sorted(runs.items()) if not _is_gone(text)][:LISTED]
    names = [each.decode(errors="replace") for each in sorted(ids)]
    fields = ask(client, [("HMGET", keyspace.batch(name), "status", "total", "completed", "failed") for name in names])
    for name, (status, total, completed, failed) in zip(names, fields, strict=True):
        if status is not None:
            ended = int(completed or 0) + int(failed or 0)
            found.append(BatchStatus(name, status.decode(errors="replace"), int(total or 0), ended))
    return found


@contextlib.contextmanager
def said(client: redis.Redis, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that tells `failover status` how many jobs of a batch have ended, at most every SAID_EVERY_SECONDS. A Redis
    that is away is no reason to end the batch."""
    next_at = 0.0

    def say(ended: int) -> None:
        nonlocal next_at
        if time.monotonic() < next_at:
            return
        next_at = time.monotonic() + SAID_EVERY_SECONDS
        text = json.dumps({"total": total, "ended": ended, "at": time.time()})
        with contextlib.suppress(RedisError):
            ask(client, [although_full(("HSET", keyspace.BATCH_RUNS, name, text))])

    with contextlib.suppress(RedisError):
        (runs,) = ask(client, [("HGETALL", keyspace.BATCH_RUNS)])
        if gone := [each for each, text in runs.items() if _is_gone(text)]:
            ask(client, [although_full(("HDEL", keyspace.BATCH_RUNS, *gone))])
    try:
        yield say
    finally:
        with contextlib.suppress(RedisError):
            ask(client, [although_full(("HDEL", keyspace.BATCH_RUNS, name))])


def _read(name: bytes, text: bytes) -> BatchStatus:
    facts = json.loads(text)
    return BatchStatus(name.decode(errors="replace"), "running", int(facts["total"]), int(facts["ended"]))


def _is_gone(text: bytes) -> bool:
    try:
        facts = json.loads(text)
        return bool(time.time() - float(facts["at"]) > GONE_SECONDS) or not {"total", "ended"} <= set(facts)
    except (ValueError, TypeError, KeyError):
        return True
