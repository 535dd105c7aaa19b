"""Reads the fair queue: RQ's list, and the tenant queues beside it (producer/lua/shared/fair_queue.lua)."""

from __future__ import annotations

from pathlib import Path

import redis
import redis.asyncio

from producer import keyspace
from producer.scripts import Call, Script, ask, ask_async

LENGTH = Script.load(Path(__file__).parent / "lua", "queue_length")
PAGE = 5000


def length_call(queue: str) -> Call:
    """Reply: [number of queued jobs, id of the next job or None]."""
    return LENGTH.call([keyspace.queue(queue)], [])


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
    """The position of a queued job, as text for people; "" if it is not in the queue."""
    in_list, in_lane, ring = ask(
        client,
        [
            ("LPOS", keyspace.queue(queue), job_id),
            ("LPOS", keyspace.tenant_queue(queue, tenant), job_id),
            ("LLEN", keyspace.round_robin(queue)),
        ],
    )
    if isinstance(in_list, int):
        turns = f", {ring - 1} other tenants take turns with them" if ring > 1 else ""
        return f"{in_list} jobs ahead of it{turns}"
    if isinstance(in_lane, int):
        return f"{in_lane} jobs of {tenant} ahead of it, {ring - 1} other tenants take turns with them"
    return ""
