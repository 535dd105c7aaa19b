"""The last safety check of accepted jobs, by one worker at a time: each is in a list, a lease or the schedule, or has ended.

The patrol finds within a minute what another tool deleted, overwrote or failed. The audit, which has to read every list, finds
jobs that are in none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import redis.asyncio

from producer import keyspace
from producer.exchange import KEEP_CANCELLED_SECONDS
from producer.scripts import Command, although_full, ask_async, run_async
from worker.queue import fair_queue, transitions

log = logging.getLogger("failover.worker")

AUDIT_SECONDS = 60
LONG_QUEUE, LONG_SECONDS = 20_000, 240  # a longer queue is audited as seldom, because all of its lists are read
AUDIT_AT_MOST = 200_000  # queued jobs; with more, the audit is skipped because reading them all takes too long
AUDIT_CHUNK = 20  # stray jobs per script call, because the script searches the whole list for each
SEARCHED_AT_MOST = 100_000  # entries of lists that one script call searches: a few milliseconds
PATROL_SECONDS = 20
PATROL_AT_MOST = 20_000  # accepted jobs per patrol; of more, each patrol sees the next ones
PAGE = 1000
_LIVE = (b"queued", b"started", b"scheduled")


class Patrol:
    """Asks the state of every accepted job, and hands those to the audit script that have none, or that RQ failed."""

    def __init__(self, client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
        self._client, self._queues = client, queues
        self._next = dict.fromkeys(queues, 0)  # rank in the accepted set

    async def go(self) -> None:
        for queue in self._queues:
            if await _my_turn(self._client, f"{queue}:patrol", PATROL_SECONDS - 5):
                await self._look(queue)

    async def _look(self, queue: str) -> None:
        (count,) = await ask_async(self._client, [("ZCARD", keyspace.accepted(queue))])
        start = self._next[queue] if self._next[queue] < count else 0
        end = min(count, start + PATROL_AT_MOST)
        self._next[queue] = end
        for first in range(start, end, PAGE):
            last = min(end, first + PAGE) - 1
            (ids,) = await ask_async(self._client, [("ZRANGE", keyspace.accepted(queue), first, last)])
            states = await run_async(
                self._client, [("HGET", keyspace.JOB.encode() + job_id, "status") for job_id in ids]
            )
            odd = [
                job_id.decode(errors="replace") for job_id, state in zip(ids, states, strict=True) if state not in _LIVE
            ]
            if odd:
                await check(self._client, queue, odd)


async def check(client: redis.asyncio.Redis, queue: str, job_ids: Sequence[str]) -> None:
    """Check accepted jobs that seem to be nowhere, or not alive; the script decides."""
    found: list[list[str]] = [[], [], [], []]
    ((queued_jobs, _),) = await ask_async(client, [fair_queue.length_call(queue)])
    chunk = max(1, min(AUDIT_CHUNK, SEARCHED_AT_MOST // (queued_jobs + 1)))
    for start in range(0, len(job_ids), chunk):
        (reply,) = await ask_async(client, [transitions.audit(queue, job_ids[start : start + chunk])])
        for ids, more in zip(found, reply, strict=True):
            ids += [job_id.decode(errors="replace") for job_id in more]
    queued, lost, failed, _ = found
    for ids, event in (
        (queued, "jobs that were in no list are queued again"),
        (lost, "jobs are lost: another tool deleted or overwrote their data; see `failover dlq list --lost`"),
        (failed, "jobs that an rq worker or tool failed are dead letters"),
    ):
        if ids:
            log.error(event, extra={"queue": queue, **some(ids)})


async def _my_turn(client: redis.asyncio.Redis, name: str, seconds: int) -> bool:
    """Whether no worker had this turn in the last `seconds`."""
    turn = although_full(("SET", keyspace.audit_turn(name), "1", "NX", "EX", seconds))
    ((is_mine,),) = await ask_async(client, [turn])
    return bool(is_mine)


def some(job_ids: Sequence[str]) -> dict[str, object]:
    """Log fields: the number of jobs, and the first ten ids."""
    return {"count": len(job_ids), "jobs": job_ids[:10]}


async def audit(client: redis.asyncio.Redis, queues: Sequence[str]) -> None:
    """Last safety check, by one worker at a time: queue accepted jobs again that are in no list, and remove old entries."""
    for queue in queues:
        (count,) = await ask_async(client, [("ZCARD", keyspace.accepted(queue))])
        if await _my_turn(client, queue, LONG_SECONDS if count > LONG_QUEUE else int(AUDIT_SECONDS * 0.8)):
            await _trim(client, queue)
            if strays := await _nowhere(client, queue):
                await check(client, queue, strays)


async def _trim(client: redis.asyncio.Redis, queue: str) -> None:
    """Remove registry entries past their retention (as RQ's own tools do) and index entries of letters that are gone."""
    ((seconds, _),) = await ask_async(client, [("TIME",)])
    registries = (keyspace.finished(queue), keyspace.failed(queue))
    trims: list[Command] = [("ZREMRANGEBYSCORE", name, "-inf", int(seconds)) for name in registries]
    trims.append(("ZREMRANGEBYSCORE", keyspace.canceled(queue), "-inf", int(seconds) - KEEP_CANCELLED_SECONDS))
    *_, indexes, count = await ask_async(
        client, [*trims, ("SMEMBERS", keyspace.dead_indexes(queue)), ("ZCARD", keyspace.dead(queue))]
    )
    for start in range(0, count, PAGE):
        (page,) = await ask_async(client, [("ZRANGE", keyspace.dead(queue), start, start + PAGE - 1)])
        (scores,) = await ask_async(client, [("ZMSCORE", keyspace.failed(queue), *page)]) if page else ([],)
        if gone := [job_id for job_id, score in zip(page, scores, strict=True) if score is None]:
            await ask_async(client, [("ZREM", name, *gone) for name in (keyspace.dead(queue), *indexes)])
    sizes = await ask_async(client, [("ZCARD", name) for name in indexes])
    if empty := [name for name, size in zip(indexes, sizes, strict=True) if size == 0]:
        await ask_async(client, [("SREM", keyspace.dead_indexes(queue), *empty)])


async def _nowhere(client: redis.asyncio.Redis, queue: str) -> list[str]:
    """Accepted jobs that seem to be in no list, lease or schedule. The audit script checks each again before it acts."""
    ((length, _),) = await ask_async(client, [fair_queue.length_call(queue)])
    if length > AUDIT_AT_MOST:
        return []
    nowhere = await _members(client, keyspace.accepted(queue))
    nowhere -= await _members(client, keyspace.scheduled(queue))
    nowhere -= {lease.rpartition(b":")[0] for lease in await _members(client, keyspace.leases(queue))}
    if nowhere:
        nowhere -= await fair_queue.ids(client, queue)
    return [job_id.decode() for job_id in nowhere][:PAGE]


async def _members(client: redis.asyncio.Redis, key: str) -> set[bytes]:
    """All members of a sorted set, read page by page. Those that move meanwhile may be missed."""
    found: set[bytes] = set()
    (count,) = await ask_async(client, [("ZCARD", key)])
    for start in range(0, count, PAGE):
        (page,) = await ask_async(client, [("ZRANGE", key, start, start + PAGE - 1)])
        found.update(page)
    return found
