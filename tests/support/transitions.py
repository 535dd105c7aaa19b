"""The transitions of a job, sent straight to a server, and where a job is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from producer import JobResult, keyspace
from producer.job import JobStatus as Status
from producer.scripts import Command, run
from tests.support.replies import texts
from worker.queue import transitions
from worker.queue.claim import Claim
from worker.queue.outcomes import Done, Outcome
from worker.queue.transitions import Settled

Q = "ai-tasks"


def send(client: redis.Redis, call: Command) -> Any:
    (reply,) = run(client, [call])
    if isinstance(reply, Exception):
        raise reply
    return reply


def claim(client: redis.Redis, at_most: int = 1, token: str = "t1", queues: Sequence[str] = (Q,)) -> tuple[Claim, ...]:
    return transitions.claimed(send(client, transitions.claim(token, at_most, "w1", queues)))[0]


def settle(client: redis.Redis, held: Claim, outcome: Outcome) -> Settled:
    call = transitions.settle(held, outcome, worker_name="w1", attempts=2, run_ms=30)
    return Settled(send(client, call).decode())


def done(job_id: str, text: str = "answer") -> Done:
    completion = {"choices": [{"message": {"content": text}}]}
    return Done(JobResult(job_id=job_id, status=Status.DONE, completion=completion, route="r"), keep_seconds=100)


def where(client: redis.Redis, job_id: str) -> list[str]:
    """Every place that holds the job: exactly one, at any time."""
    places = ["queue"] * client.lrange(keyspace.queue(Q), 0, -1).count(job_id.encode())
    for name in ("scheduled", "finished", "failed"):
        if client.zscore(f"rq:{name}:{Q}", job_id) is not None:
            places.append(name)
    leased = [lease for lease in texts(client.zrange(keyspace.leases(Q), 0, -1)) if lease.startswith(f"{job_id}:")]
    return places + ["leased"] * len(leased)


def expire_leases(client: redis.Redis) -> None:
    for member in texts(client.zrange(keyspace.leases(Q), 0, -1)):
        client.zadd(keyspace.leases(Q), {member: 1})
