"""Reads the fair queue: RQ's list, and the tenant queues beside it (producer/lua/shared/fair_queue.lua)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import redis
import redis.asyncio

from producer import keyspace
from producer.keyspace import JobField
from producer.scripts import Call, Command, Script, ask, ask_async
from worker.humanize import many

LENGTH = Script.load(Path(__file__).parent / "lua", "queue_length")
PAGE = 1000
SEARCHED = 50_000  # entries of a list in which a job's place is looked for: about a millisecond of Redis
SAMPLE = 200  # jobs read to estimate the whole list


def length_call(queue: str) -> Call:
    """Reply: [number of queued jobs, id of the next job or None]."""
    held = (keyspace.accepted(queue), keyspace.scheduled(queue), keyspace.leases(queue))
    return LENGTH.call([keyspace.queue(queue), *held], [])


def waiting_of(client: redis.Redis, queue: str, tenant: str) -> int:
    """About how many jobs of a tenant are queued."""
    return tenants(client, queue).get(tenant, 0)


def tenants(client: redis.Redis, queue: str) -> dict[str, int]:
    """The number of queued jobs by tenant, the largest first. Tenant queues are counted; the shares of RQ's list are
    estimated from SAMPLE of its jobs."""
    ring, listed = ask(client, [("LRANGE", keyspace.round_robin(queue), 0, -1), ("LLEN", keyspace.queue(queue))])
    names = [tenant.decode(errors="replace") for tenant in ring if tenant]
    lengths = ask(client, [("LLEN", keyspace.tenant_queue(queue, name)) for name in names])
    counts = Counter(dict(zip(names, lengths, strict=True)))
    ids = [job_id.decode(errors="replace") for job_id in ask(client, [*sampled(queue, listed)]) if job_id]
    facts = ask(client, [("HMGET", keyspace.job(job_id), "status", JobField.TENANT) for job_id in ids])
    alive = Counter(tenant.decode(errors="replace") for status, tenant in facts if status == b"queued" and tenant)
    for tenant, count in alive.items():
        counts[tenant] += round(listed * count / len(ids))
    return {tenant: count for tenant, count in counts.most_common() if count}


def sampled(queue: str, listed: int) -> Iterator[Command]:
    """Commands that read up to SAMPLE ids of RQ's list of `listed` jobs, spread over it."""
    for index in sorted({number * listed // SAMPLE for number in range(SAMPLE)} if listed else ()):
        yield ("LINDEX", keyspace.queue(queue), index)


def tenant_queues(ring: list[bytes], queue: str) -> list[str]:
    """The keys of a queue's tenant queues; `ring` is the round robin as read from Redis, in which b"" is RQ's list."""
    return [keyspace.tenant_queue(queue, tenant.decode()) for tenant in ring if tenant]


async def ids(client: redis.asyncio.Redis, queue: str) -> set[bytes]:
    """The ids of all queued jobs, read page by page. Jobs that move meanwhile may be missed."""
    (ring,) = await ask_async(client, [("LRANGE", keyspace.round_robin(queue), 0, -1)])
    found: set[bytes] = set()
    for key in (keyspace.queue(queue), *tenant_queues(ring, queue)):
        start, page = 0, [b""]
        while page:
            (page,) = await ask_async(client, [("LRANGE", key, start, start + PAGE - 1)])
            found.update(page)
            start += PAGE
    return found


def place(client: redis.Redis, queue: str, job_id: str, tenant: str) -> str:
    """The position of a queued job, as text for people; "" if it is not among the first SEARCHED of its list."""
    in_list, in_lane, ring = ask(
        client,
        [
            ("LPOS", keyspace.queue(queue), job_id, "MAXLEN", SEARCHED),
            ("LPOS", keyspace.tenant_queue(queue, tenant), job_id, "MAXLEN", SEARCHED),
            ("LLEN", keyspace.round_robin(queue)),
        ],
    )
    others = many(ring - 1, "other tenant")
    if isinstance(in_list, int):
        turns = f", taking turns with {others}" if ring > 1 else ""
        return f"{many(in_list, 'job')} ahead of it{turns}"
    if isinstance(in_lane, int):
        return f"{many(in_lane, 'job')} of {tenant} ahead of it, taking turns with {others}"
    return ""
