"""The conditions of a queue: jobs wait and no worker runs; most of the waiting jobs belong to one tenant."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import redis

from producer import keyspace
from producer.keyspace import JobField
from producer.scripts import ask
from worker.humanize import many, money, one_line
from worker.notify.condition import LONGEST_NAME, Condition, waiting_size
from worker.notify.kinds import Kind
from worker.notify.oncall import OnCall
from worker.queue import fair_queue
from worker.reports import backlog


def without_workers(workers: int, waiting: int) -> Iterator[Condition]:
    """Nobody executes the jobs that wait. `workers`: how many of ours are alive."""
    if not workers and waiting:
        wait = waiting_size(waiting)
        yield Condition(
            Kind.NO_WORKERS, lines=(f"{wait}.",), size=wait, marks={"no worker runs": "a worker runs again"}
        )


def floods(client: redis.Redis, queues: Sequence[str], on_call: OnCall) -> Iterator[Condition]:
    """Tenants with more than `flood_jobs` queued jobs that are more than `flood_percent` of a queue. Cheap: it reads lengths
    and a sample, never all jobs."""
    for queue in queues:
        ((total, _),) = ask(client, [fair_queue.length_call(queue)])
        if on_call.flood_jobs is None or total <= on_call.flood_jobs:
            continue
        for tenant, count in fair_queue.tenants(client, queue).items():
            if count > on_call.flood_jobs and count > total * on_call.flood_percent / 100:
                yield _flood(client, queue, tenant, min(count, total), total)  # the count is of a sample


def _flood(client: redis.Redis, queue: str, tenant: str, count: int, total: int) -> Condition:
    name = one_line(tenant, LONGEST_NAME)
    dollars = backlog.cost(client, queue, tenant)
    cost = f"about {money(dollars)}" if dollars is not None else "cost unknown"
    rate = _rate(client, queue, tenant, count)
    sent = f", sent at about {rate:,.0f} a minute" if rate is not None else ""
    return Condition(
        Kind.FLOOD,
        tenant,
        queue,
        lines=(f"{name}: about {count:,} of the {many(total, 'job')} that wait{sent}; {cost} to execute them.",),
        marks={f"{name} fills the queue": f"{name} fills the queue no more"},
        title=f"{name} fills the queue",
        size=f"about {many(count, 'job')}, {cost}",
        commands=tuple(
            f"failover {words} --tenant {shlex.quote(tenant)}" for words in ("pause", "job cancel", "resume")
        ),
    )


def _rate(client: redis.Redis, queue: str, tenant: str, count: int) -> float | None:
    """Jobs a minute at which the tenant sent its waiting jobs, by the first and the last of a sample; None if unknown."""
    lane = keyspace.tenant_queue(queue, tenant)
    (listed,) = ask(client, [("LLEN", keyspace.queue(queue))])
    ids = ask(client, [("LINDEX", lane, 0), ("LINDEX", lane, -1), *fair_queue.sampled(queue, listed)])
    names = [job_id.decode(errors="replace") for job_id in ids if job_id]
    facts = ask(client, [("HMGET", keyspace.job(name), JobField.TENANT, JobField.ACCEPTED) for name in names])
    accepted = [int(ms) for owner, ms in facts if owner == tenant.encode() and ms and ms.isdigit()]
    minutes = (max(accepted) - min(accepted)) / 60_000 if accepted else 0
    return count / minutes if minutes > 0 else None
