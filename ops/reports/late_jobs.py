"""`failover job late`: jobs past the time to answer that their policy promises, the latest first."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from producer import keyspace
from producer.keyspace import JobField
from producer.policy import Policies
from producer.results import status_of
from producer.scripts import ask
from worker.queue.dead_letters import now_ms


@dataclass(frozen=True)
class LateJob:
    """One late job. `late_seconds`: since the promised time. `human_review`: its policy lets a person answer it now."""

    job_id: str
    tenant: str
    job_type: str
    status: str
    late_seconds: float
    human_review: bool


def listed(client: redis.Redis, queue: str, policies: Policies, limit: int) -> tuple[int, list[LateJob]]:
    """(number of late jobs in `queue`, the `limit` latest of them)."""
    now = now_ms(client)
    late = keyspace.promised(queue)
    total, found = ask(
        client, [("ZCOUNT", late, "-inf", now), ("ZRANGEBYSCORE", late, "-inf", now, "WITHSCORES", "LIMIT", 0, limit)]
    )
    names = (JobField.TENANT, JobField.TYPE, "status")
    replies = ask(client, [("HMGET", keyspace.job(job_id.decode()), *names) for job_id, _ in found])
    jobs = []
    for (job_id, promised_ms), (tenant, job_type, status) in zip(found, replies, strict=True):
        if status is None:
            continue  # it ended between the two reads
        type_name = (job_type or b"default").decode()
        jobs.append(
            LateJob(
                job_id=job_id.decode(),
                tenant=(tenant or b"?").decode(),
                job_type=type_name,
                status=str(status_of(status)),
                late_seconds=max(0.0, (now - float(promised_ms)) / 1000),
                human_review=policies.of_known(type_name).human_review,
            )
        )
    return total, jobs
