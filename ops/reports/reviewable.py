"""The jobs that a person may answer by hand, and their questions: `failover review`, and the page of the same name."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from ops.reports import late_jobs
from producer import Producer, keyspace
from producer.errors import FailoverError, UsageError
from producer.job import DeadReason, ForeignJob, LLMJob, NewerSchema, decode_job
from producer.keyspace import JobField
from producer.scripts import ask
from worker.control import worker_registry
from worker.humanize import one_line
from worker.queue import dead_letters, tenant_jobs
from worker.queue.dead_letters import Filters

FOR_A_PERSON = {
    DeadReason.REFUSED: "no model may answer it",
    DeadReason.EXHAUSTED: "no model could answer it",
    DeadReason.REJECTED: "no model can take it as it is",
    DeadReason.EXPIRED: "it waited for too long",
    DeadReason.CRASHED: "it crashed its workers",
}
QUESTION = 100  # characters of a question in a list
QUESTION_BYTES = 64 * 1024  # of a request whose question stands in a list
AT_ONCE = 50  # requests that are read in one round trip
READ_AT_MOST = 10_000  # late jobs in one search


@dataclass(frozen=True)
class Reviewable:
    """A job that a person may answer. `since_ms`: Unix time when its promised time passed, when it died, or for a waiting one
    when it was accepted. `question`: the beginning of its last message."""

    job_id: str
    tenant: str
    job_type: str
    why: str
    since_ms: int
    question: str = ""


def reviewable(producer: Producer, tenant: str | None, limit: int, *, human_review: bool = True) -> list[Reviewable]:
    """Late jobs and dead letters whose policy has `human_review`, or only those whose policy lacks it, the longest waiting
    first."""
    now = dead_letters.now_ms(producer.client)
    found = _found(producer, tenant, limit, now, human_review=human_review)
    return _with_questions(producer.client, heapq.nsmallest(limit, found, key=lambda job: job.since_ms))


def request_of(producer: Producer, job_id: str) -> LLMJob:
    """The request of a job that has no answer yet. Raises UsageError if it has one, UnknownJob, FailoverError."""
    (data,) = ask(producer.client, [("HGET", keyspace.job(job_id), "data")])
    result = producer.fetch(job_id)
    if result.status.ended and result.status != "dead":
        raise UsageError(f"job {job_id} is {result.status}: it needs no answer")
    try:
        return decode_job(data or b"")
    except (FailoverError, ForeignJob, NewerSchema) as error:
        raise FailoverError(f"job {job_id} cannot be read: {error}") from None


def _found(producer: Producer, tenant: str | None, limit: int, now: int, *, human_review: bool) -> Iterator[Reviewable]:
    client, policies = producer.client, producer.policies
    for queue in worker_registry.queues(client, producer.queue):
        _, jobs = late_jobs.listed(client, queue, policies, READ_AT_MOST)
        for job in jobs:
            if job.human_review is human_review and tenant in (None, job.tenant):
                why = f"late, {job.status}"
                yield Reviewable(job.job_id, job.tenant, job.job_type, why, now - int(job.late_seconds * 1000))
        for reason, why in FOR_A_PERSON.items():
            for letter in dead_letters.listed(client, queue, Filters(reason=reason, tenant=tenant), limit):
                if policies.of_known(letter.job_type).human_review is human_review:
                    yield Reviewable(letter.job_id, letter.tenant, letter.job_type, why, letter.died_ms)


def waiting(producer: Producer, tenant: str, limit: int) -> tuple[int, list[Reviewable]]:
    """(how many jobs of a client wait in all queues, the `limit` that wait longest)."""
    client = producer.client
    queues = worker_registry.queues(client, producer.queue)
    ids = [job_id for queue in queues for job_id in tenant_jobs.waiting(client, queue, tenant)]
    accepted: list[int] = []
    for start in range(0, len(ids), tenant_jobs.PAGE):
        page = ids[start : start + tenant_jobs.PAGE]
        times = ask(client, [("HGET", keyspace.job(job_id), JobField.ACCEPTED) for job_id in page])
        accepted += [int(ms or 0) for ms in times]
    oldest = heapq.nsmallest(limit, zip(accepted, ids, strict=True))
    fields = (JobField.TYPE, JobField.WAITING_FOR)
    facts = ask(client, [("HMGET", keyspace.job(job_id), *fields) for _, job_id in oldest])
    found = []
    for (since_ms, job_id), values in zip(oldest, facts, strict=True):
        job_type, why = ((value or b"").decode(errors="replace") for value in values)
        found.append(Reviewable(job_id, tenant, job_type, why or "queued", since_ms))
    return len(ids), _with_questions(client, found)


def _with_questions(client: redis.Redis, jobs: Sequence[Reviewable]) -> list[Reviewable]:
    """The jobs with their questions, but for long requests: those of many may be larger than the memory."""
    found: list[Reviewable] = []
    for start in range(0, len(jobs), AT_ONCE):
        page = jobs[start : start + AT_ONCE]
        sizes = ask(client, [("HSTRLEN", keyspace.job(job.job_id), "data") for job in page])
        short = [job.job_id for job, size in zip(page, sizes, strict=True) if size <= QUESTION_BYTES]
        requests = ask(client, [("HGET", keyspace.job(job_id), "data") for job_id in short])
        questions = dict(zip(short, map(_question, requests), strict=True))
        found += [replace(job, question=questions.get(job.job_id, "(long: open it)")) for job in page]
    return found


def _question(request: bytes | None) -> str:
    """The beginning of the last message."""
    try:
        return one_line(text_of_message(decode_job(request or b"").body["messages"][-1]), QUESTION)
    except (FailoverError, ForeignJob, NewerSchema):
        return "(it cannot be read)"


def text_of_message(message: Any) -> str:
    """The text of a chat message; other parts are shown as `[type]`."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [str(part.get("text", f"[{part.get('type', '?')}]")) if isinstance(part, dict) else "[?]" for part in parts]
    return "\n".join(texts) or json.dumps({key: value for key, value in message.items() if key != "role"})
