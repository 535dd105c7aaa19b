"""The jobs of one tenant that wait or run, found page by page, and cancelled in bounded scripts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from uuid import uuid4

import redis

from producer import keyspace
from producer.keyspace import JobField
from producer.scripts import ask
from worker.queue import transitions
from worker.queue.dead_letters import reply_of

PAGE = 1000  # jobs read in one round trip
CANCEL_AT_ONCE = 25  # jobs of one script: a few milliseconds


def waiting(client: redis.Redis, queue: str, tenant: str) -> list[str]:
    """The ids of its queued and scheduled jobs, the last of each list first."""
    found: list[str] = []
    (scheduled,) = ask(client, [("ZCARD", keyspace.scheduled(queue))])
    for start in range(0, scheduled, PAGE):
        (page,) = ask(client, [("ZRANGE", keyspace.scheduled(queue), start, start + PAGE - 1)])
        found += _of_tenant(client, page, tenant, b"scheduled")
    for key in (keyspace.tenant_queue(queue, tenant), keyspace.queue(queue)):
        for page in _from_the_end(client, key):
            found += _of_tenant(client, page, tenant, b"queued")
    return list(dict.fromkeys(found))


def running(client: redis.Redis, queue: str, tenant: str) -> list[str]:
    """The ids of its jobs that workers execute now."""
    found: list[str] = []
    (leases,) = ask(client, [("ZCARD", keyspace.leases(queue))])
    for start in range(0, leases, PAGE):
        (page,) = ask(client, [("ZRANGE", keyspace.leases(queue), start, start + PAGE - 1)])
        found += _of_tenant(client, [lease.rpartition(b":")[0] for lease in page], tenant, b"started")
    return list(dict.fromkeys(found))


def cancel(
    client: redis.Redis, queue: str, tenant: str, job_ids: Sequence[str], *, who: str, report: Callable[[int], None]
) -> int:
    """Cancel those of `job_ids`, as `waiting` returns them, that still wait. Returns how many.

    `report` gets the number of jobs of each script.
    """
    cancelled = 0
    for start in range(0, len(job_ids), CANCEL_AT_ONCE):
        chunk = job_ids[start : start + CANCEL_AT_ONCE]
        call = transitions.cancel_waiting(queue, tenant, chunk, token=uuid4().hex, who=who)
        cancelled += len(reply_of(client, call)[0])
        report(len(chunk))
    return cancelled


def _from_the_end(client: redis.Redis, key: str) -> Iterator[list[bytes]]:
    """The pages of a list, the last entry first. Entries that are added or taken meanwhile may be missed."""
    for start in itertools.count(1, PAGE):
        (page,) = ask(client, [("LRANGE", key, -start - PAGE + 1, -start)])
        if not page:
            return
        yield page[::-1]


def _of_tenant(client: redis.Redis, ids: Sequence[bytes], tenant: str, status: bytes) -> list[str]:
    names = [job_id.decode(errors="replace") for job_id in ids]
    facts = ask(client, [("HMGET", keyspace.job(name), "status", JobField.TENANT) for name in names])
    return [name for name, fact in zip(names, facts, strict=True) if fact == [status, tenant.encode()]]
