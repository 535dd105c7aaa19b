"""Which jobs of a client wait, since when, and how much longer: the facts of a message to the client."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import redis

from producer import keyspace
from producer.client import DEFAULT_QUEUE
from producer.errors import UnknownJob, UsageError
from producer.keyspace import JobField
from producer.results import status_of
from producer.scripts import ask
from worker.control import worker_registry
from worker.control.pause import EVERYTHING, holding, utc
from worker.money import budget_state
from worker.reports import backlog

PAGE = 2000
_STEPS = ((15, "15 minutes"), (30, "half hour"), (60, "hour"), (120, "2 hours"), (240, "4 hours"), (480, "8 hours"))
UNKNOWN_ETA = "as soon as this is over, and write again within the hour"


@dataclass(frozen=True)
class ClientStatus:
    """The unfinished jobs of one tenant, and their queues. `since`: Unix time in seconds when the first was accepted."""

    tenant: str
    jobs: int
    job_type: str
    since: float | None
    queues: tuple[str, ...] = ()

    def facts(self, minutes: float | None) -> dict[str, str]:
        """Values for the placeholders of a message; unknown ones are left out. `minutes`: until the backlog is done."""
        facts = {"tenant": self.tenant, "eta": eta(minutes)}
        if self.jobs:
            facts["job_type"] = "usual" if self.job_type == "default" else self.job_type.replace("_", " ")
            facts["jobs"] = f"Your {self.jobs} jobs are" if self.jobs > 1 else "Your job is"
        return facts | ({"since": utc(self.since)} if self.since else {})


def minutes(client: redis.Redis, queues: Sequence[str]) -> float | None:
    """Minutes until the backlog of all queues is done; None if unknown: a queue is paused, a cap is used up, or no route is
    open."""
    if any(holding(client, queue) for queue in queues) or worker_registry.no_route_open(client):
        return None
    if any(status.full for status in budget_state.standing(client).cap_statuses.values()):
        return None  # some jobs wait until the cap has room
    return backlog.estimate(client, EVERYTHING, queues[0]).minutes


def eta(minutes: float | None) -> str:
    """A time to promise: the first round time that is at least 1.5 times the estimate."""
    if minutes is None:
        return UNKNOWN_ETA
    return next((f"within the next {time}" for most, time in _STEPS if minutes <= most / 1.5), "by tomorrow")


def of_job(client: redis.Redis, job_id: str) -> ClientStatus:
    """The status of one job's client. Raises UnknownJob; UsageError for a job that has ended."""
    fields = ("status", "origin", JobField.TENANT, JobField.TYPE, JobField.ACCEPTED)
    (values,) = ask(client, [("HMGET", keyspace.job(job_id), *fields)])
    if values[0] is None:
        raise UnknownJob(job_id)
    if (status := status_of(values[0])).ended:
        raise UsageError(f"job {job_id} is {status}: nothing waits; use --tenant for the client's other jobs")
    origin, tenant, job_type, accepted = (value.decode(errors="replace") if value else "" for value in values[1:])
    return ClientStatus(tenant, 1, job_type, float(accepted) / 1000 if accepted else None, (origin,) if origin else ())


def owner(client: redis.Redis, job_id: str) -> ClientStatus:
    """The tenant and the type of a job in any state; "?" if unknown."""
    (values,) = ask(client, [("HMGET", keyspace.job(job_id), JobField.TENANT, JobField.TYPE)])
    tenant, job_type = (value.decode(errors="replace") if value else "?" for value in values)
    return ClientStatus(tenant, 1, job_type, None)


def of_tenant(client: redis.Redis, tenant: str) -> ClientStatus:
    """The status of a tenant. It reads every unfinished job, because there is no index by tenant."""
    types: Counter[str] = Counter()
    since: list[float] = []
    queues: list[str] = []
    for queue in worker_registry.queues(client, DEFAULT_QUEUE):
        for owner, job_type, accepted in _accepted(client, queue):
            if owner == tenant.encode():
                types[job_type.decode() if job_type else "usual"] += 1
                since.append(float(accepted or 0) / 1000)
                queues.append(queue)
    usual = types.most_common(1)[0][0] if types else "usual"
    return ClientStatus(tenant, types.total(), usual, min(since, default=None), tuple(dict.fromkeys(queues)))


def _accepted(client: redis.Redis, queue: str) -> Iterator[list[bytes | None]]:
    """[tenant, type, accepted] of each unfinished job of a queue; `accepted`: Unix time in milliseconds."""
    fields = (JobField.TENANT, JobField.TYPE, JobField.ACCEPTED)
    for start in itertools.count(0, PAGE):
        (page,) = ask(client, [("ZRANGE", keyspace.accepted(queue), start, start + PAGE - 1)])
        if not page:
            return
        yield from ask(client, [("HMGET", keyspace.job(job_id.decode()), *fields) for job_id in page])
