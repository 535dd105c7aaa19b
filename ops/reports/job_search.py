"""Finds jobs by tenant, feature, type, state, route and time, newest first, in a bounded number of reads.

No index of every job exists: the registries of a state are read from their newest entry on, at most READ_AT_MOST jobs of each.
Dead letters have indexes, so all of them are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from producer import keyspace
from producer.job import JobStatus
from producer.keyspace import JobField
from producer.results import status_of
from producer.scripts import ask
from worker.money.budget_state import month_of
from worker.money.rows import closed_row
from worker.queue import dead_letters, fair_queue
from worker.queue.dead_letters import Filters

PAGE = 500
READ_AT_MOST = 5_000  # jobs of a registry, or ledger rows, in one search
STATES = {  # waiting: retried later, parked or delayed
    "queued": {JobStatus.QUEUED},
    "waiting": {JobStatus.RETRYING, JobStatus.PARKED, JobStatus.QUEUED},
    "running": {JobStatus.RUNNING},
    "dead": {JobStatus.DEAD},
    "done": {JobStatus.DONE},
    "cancelled": {JobStatus.CANCELLED},
}


@dataclass(frozen=True)
class Query:
    """What is looked for; None is everything. Times are Unix milliseconds at which a job was accepted; `state` is one of
    STATES."""

    tenant: str | None = None
    feature: str | None = None
    route: str | None = None
    state: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def reads(self) -> int:
        """How many jobs of a registry are read: few where every job matches."""
        narrow = (self.tenant, self.feature, self.route, self.since_ms, self.until_ms)
        return PAGE if narrow == (None,) * 5 else READ_AT_MOST


@dataclass(frozen=True)
class FoundJob:
    """One job. `route`: the one that answered, or a dead letter's last one; "" if not known. Times are Unix milliseconds."""

    job_id: str
    queue: str
    status: JobStatus
    tenant: str
    feature: str
    job_type: str
    route: str
    why: str
    accepted_ms: int


@dataclass(frozen=True)
class Found:
    """The newest jobs. `partly`: some registry has more jobs than were read, so older ones may be missing."""

    jobs: tuple[FoundJob, ...]
    partly: bool


def search(client: redis.Redis, queues: Sequence[str], query: Query, limit: int) -> Found:
    """The newest `limit` jobs that match."""
    found: dict[str, FoundJob] = {}
    partly = False
    for queue in queues:
        for state in STATES if query.state is None else (query.state,):
            ids, more = _ids(client, queue, state, query)
            partly |= more
            for job in _read(client, ids, state):
                if _matches(job, query):
                    found[job.job_id] = job
    newest = sorted(found.values(), key=lambda job: (-job.accepted_ms, job.job_id))
    return Found(tuple(newest[:limit]), partly)


def _matches(job: FoundJob, query: Query) -> bool:
    pairs = ((query.tenant, job.tenant), (query.feature, job.feature), (query.route, job.route))
    if any(wanted is not None and wanted != has for wanted, has in pairs):
        return False
    return (query.since_ms or 0) <= job.accepted_ms <= (query.until_ms or 1 << 62)


Ids = dict[str, dict[str, str]]  # by job id, what an index says of it: its route, its feature


def _ids(client: redis.Redis, queue: str, state: str, query: Query) -> tuple[Ids, bool]:
    """(the ids in the registry of a state, newest first as far as it is known; whether it has more)."""
    if state == "dead":
        return _dead(client, queue, query), False
    if state == "done" and (query.route or query.feature):
        return _of_ledger(client, query)
    keys = {
        "waiting": keyspace.scheduled(queue),
        "running": keyspace.leases(queue),
        "done": keyspace.finished(queue),
        "cancelled": keyspace.canceled(queue),
    }
    if state == "queued":
        lists = [keyspace.queue(queue)] + ([keyspace.tenant_queue(queue, query.tenant)] if query.tenant else [])
        if not query.tenant:
            lists += [keyspace.tenant_queue(queue, tenant) for tenant in list(fair_queue.tenants(client, queue))[:50]]
        replies = ask(client, [("LRANGE", key, -query.reads, -1) for key in lists])
        names = [entry.decode(errors="replace") for reply in replies for entry in reversed(reply)]
        return {name: {} for name in names[: query.reads]}, any(len(reply) == query.reads for reply in replies)
    (reply,) = ask(client, [("ZRANGE", keys[state], 0, query.reads - 1, "REV")])
    names = [entry.decode(errors="replace") for entry in reply]
    if state == "running":
        names = [name.rpartition(":")[0] for name in names]
    return {name: {} for name in names}, len(reply) == query.reads


def _dead(client: redis.Redis, queue: str, query: Query) -> Ids:
    filters = Filters(tenant=query.tenant, route=query.route)
    until = dead_letters.now_ms(client)
    found: Ids = {}
    for page in dead_letters.pages(client, queue, filters, until_ms=until, newest_first=True):
        found |= {job_id: {} for job_id, _ in page}
        if len(found) >= query.reads:
            break
    return found


def _of_ledger(client: redis.Redis, query: Query) -> tuple[Ids, bool]:
    """Done jobs by the route or the feature of their settled calls: a done job itself keeps neither."""
    found: Ids = {}
    now, read = datetime.now(UTC), 0
    for month in dict.fromkeys((month_of(now), month_of(now - timedelta(days=28)))):
        key = keyspace.LEDGER + month
        (entries,) = ask(client, [("XREVRANGE", key, "+", "-", "COUNT", READ_AT_MOST - read)])
        read += len(entries)
        for row in (closed_row(flat) for _, flat in entries):
            if row.get("state") == "settled" and _row_matches(row, query):
                found.setdefault(str(row["job"]), {"route": str(row["route"]), "feature": str(row["feature"] or "")})
        if read >= READ_AT_MOST:
            return found, True
    return found, False


def _row_matches(row: dict[str, Any], query: Query) -> bool:
    wanted = {"tenant": query.tenant, "feature": query.feature, "route": query.route}
    return all(value is None or row.get(name) == value for name, value in wanted.items())


_FIELDS = (
    "status", "origin", JobField.TENANT, JobField.FEATURE, JobField.TYPE, JobField.DEAD_ROUTE,
    JobField.WAITING_FOR, JobField.DEAD_DETAIL, JobField.ACCEPTED,
)  # fmt: skip


def _read(client: redis.Redis, ids: Ids, state: str) -> Iterator[FoundJob]:
    """The jobs that still are in this state."""
    for some in _pages(ids):
        replies = ask(client, [("HMGET", keyspace.job(job_id), *_FIELDS) for job_id in some])
        for job_id, reply in zip(some, replies, strict=True):
            if reply[0] is None:
                continue
            texts = [value.decode(errors="replace") if value else "" for value in reply]
            status = status_of(reply[0])
            if status in STATES[state]:
                known = ids[job_id]
                _, queue, tenant, feature, job_type, route, waits, died, accepted = texts
                yield FoundJob(
                    job_id, queue, status, tenant or "?", known.get("feature", feature), job_type or "default",
                    known.get("route", route if status is JobStatus.DEAD else ""), died if status is JobStatus.DEAD else waits,
                    int(float(accepted or 0)),
                )  # fmt: skip


def _pages(ids: Iterable[str]) -> Iterator[list[str]]:
    names = list(ids)
    yield from (names[start : start + PAGE] for start in range(0, len(names), PAGE))
