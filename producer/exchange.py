"""The exchange with Redis for each method of a producer, written once for the blocking and the asyncio client.

Each method is a generator. It yields the commands of one round trip (or a Sleep), receives the replies, and returns the
method's result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import uuid4

from producer import keyspace, telemetry
from producer.errors import IdempotencyConflict, InvalidJob, JobEnded, JobLost, UnknownJob, WrongType
from producer.job import Encoded, JobResult, LLMJob, check_id, encode_job
from producer.keyspace import JobField
from producer.policy import Policies
from producer.redis_server.memory import FULL_PERCENT
from producer.results import answer_command, answer_of, has_ended, lost_facts, result_commands, result_of, status_of
from producer.scripts import Command, Script

_LUA = Path(__file__).parent / "lua"
ENQUEUE, CANCEL = (Script.load(_LUA, name) for name in ("enqueue", "cancel"))
KEEP_CANCELLED_SECONDS = 7 * 86400
BATCH_JOBS, BATCH_BYTES = 200, 1_000_000  # of one round trip
STATUSES = 1000  # of one round trip
LONGEST_DELAY_SECONDS = 366 * 86400

T = TypeVar("T")


@dataclass(frozen=True)
class Receipt:
    """The result of a submission. `duplicate`: `job_id` is the job that has the same key and body. `conflict`: the key
    belongs to `job_id`, which has another body; nothing was accepted."""

    job_id: str
    outcome: Literal["accepted", "duplicate", "conflict"]


@dataclass(frozen=True)
class Sleep:
    """Yielded in place of commands: the client waits."""

    seconds: float


Steps = Generator[Sequence[Command] | Sleep, list[Any], T]


def enqueue_one(job: LLMJob, job_id: str | None, policies: Policies, queue: str) -> Steps[str]:
    (receipt,) = yield from enqueue([(job, job_id)], policies, queue)
    if receipt.outcome == "conflict":
        raise IdempotencyConflict(receipt.job_id)
    return receipt.job_id


def enqueue(
    jobs: Iterable[tuple[LLMJob, str | None]], policies: Policies, queue: str, before: Sequence[Command] = ()
) -> Steps[list[Receipt]]:
    """`before`: commands that are sent ahead of the first job, in its round trip. They may be sent again."""
    receipts: list[Receipt] = []
    batch, skip, size = list(before), len(before), 0
    wanted = list(jobs)
    for job, job_id in wanted:  # what raises does so before any job is accepted
        policies.of(job.job_type)
        if (job.not_before or 0) > time.time() + LONGEST_DELAY_SECONDS:
            raise InvalidJob("not_before", f"is more than {LONGEST_DELAY_SECONDS // 86400} days away")
        if job_id is not None:
            check_id(job_id)
    sending = telemetry.sending(wanted, queue)
    wanted = list(sending.jobs if sending else telemetry.in_active_trace(wanted))
    encoded_jobs = [encode_job(job) for job, _ in wanted]
    for (job, job_id), encoded in zip(wanted, encoded_jobs, strict=True):
        batch.append(_enqueue_call(job, job_id or uuid4().hex, encoded, policies, queue))
        size += len(encoded.data)
        if len(batch) >= BATCH_JOBS or size >= BATCH_BYTES:
            receipts += _receipts((yield batch)[skip:])
            batch, skip, size = [], 0, 0
    if len(batch) > skip:
        receipts += _receipts((yield batch)[skip:])
    if sending:
        sending.ended([(receipt.job_id, receipt.outcome) for receipt in receipts])
    return receipts


def _enqueue_call(job: LLMJob, job_id: str, encoded: Encoded, policies: Policies, queue: str) -> Command:
    policy = policies.of(job.job_type)
    keys = [
        keyspace.idempotency(job.tenant_id, job.key_for(job_id, encoded.fingerprint)),
        keyspace.job(job_id),
        keyspace.queue(queue),
        keyspace.QUEUES,
        keyspace.accepted(queue),
        keyspace.stopped(queue),
        keyspace.PAUSE,
        keyspace.pause_of(queue),
        keyspace.SUSPENDED,
        keyspace.MEMORY,
        keyspace.scheduled(queue),
    ]
    expires_ms = int((job.expires_after_seconds or policy.expires_after_seconds) * 1000)
    fields: Mapping[str, str | bytes | int] = {
        "data": encoded.data,
        JobField.SIZE: encoded.size,
        "origin": queue,
        "description": f"{job.job_type} for {job.tenant_id}",  # RQ's tools show it, so it contains nothing of the prompt
        JobField.TENANT: job.tenant_id,
        JobField.TYPE: job.job_type,
        "timeout": int(policy.deadline_seconds),
    }
    if job.feature:
        fields = {**fields, JobField.FEATURE: job.feature}
    flat = [word for pair in fields.items() for word in pair]
    at_head = "1" if job.priority else "0"
    promised_ms = int(policy.max_time_to_answer_seconds * 1000)
    args = (job_id, encoded.fingerprint, expires_ms, at_head, keyspace.JOB, keyspace.WAKE, promised_ms, job.tenant_id)
    not_before_ms = int((job.not_before or 0) * 1000)
    return ENQUEUE.call(keys, [*args, FULL_PERCENT, int(job.idempotency_key is not None), not_before_ms, *flat])


def _receipts(replies: Sequence[Any]) -> list[Receipt]:
    return [Receipt(job_id.decode(), outcome.decode()) for outcome, job_id in replies]


def fetch_one(job_id: str, tenant: str | None = None) -> Steps[JobResult]:
    """`tenant`: a job of another tenant is unknown too."""
    job_id = sendable(job_id)
    result, owner = None, None
    with contextlib.suppress(WrongType):
        fields, entries, owner = yield [*result_commands(job_id), ("HGET", keyspace.job(job_id), JobField.TENANT)]
        result = result_of(job_id, fields, entries)
    if result is None and tenant is None:
        yield from _raise_if_lost(job_id)
    if result is None or owner is None or not _is_of(tenant, owner):
        raise UnknownJob(job_id)  # without an owner it is a job of another app
    return result


def answer(job_id: str) -> Steps[JobResult | None]:
    (entries,) = yield [answer_command(sendable(job_id))]
    return answer_of(entries)


def _raise_if_lost(job_id: str) -> Steps[None]:
    """Raises JobLost for an accepted job whose data is gone, also before a worker has noticed it."""
    found, queues = yield [("HGET", keyspace.LOST, job_id), ("SMEMBERS", keyspace.QUEUES)]
    if isinstance(found, bytes):
        raise JobLost(job_id, lost_facts(found)[1])
    names = [key.decode(errors="replace").removeprefix(keyspace.QUEUE) for key in queues]
    scores = yield [("ZSCORE", keyspace.accepted(name), job_id) for name in names]
    if any(score is not None for score in scores):
        raise JobLost(job_id)


def _is_of(tenant: str | None, owner: bytes | None) -> bool:
    return tenant is None or owner == sendable(tenant).encode()


def sendable(text: str) -> str:
    """The text without lone surrogates, which cannot be sent: their escapes stand in no id and in no tenant's name."""
    return text.encode(errors="backslashreplace").decode()


def fetch(job_ids: Sequence[str]) -> Steps[list[JobResult | None]]:
    if not job_ids:
        return []
    job_ids = [sendable(job_id) for job_id in job_ids]
    replies = yield [command for job_id in job_ids for command in result_commands(job_id)]
    return [
        result_of(job_id, fields, entries)
        for job_id, fields, entries in zip(job_ids, replies[::2], replies[1::2], strict=True)
    ]


def ended(job_ids: Sequence[str], queue: str) -> Steps[list[bool]]:
    """One command asks for STATUSES jobs of the queue whether they are accepted and not ended. Only of the others, those of
    other queues among them, the status is read."""
    answers: list[bool] = []
    job_ids = [sendable(job_id) for job_id in job_ids]
    for start in range(0, len(job_ids), STATUSES):
        asked = job_ids[start : start + STATUSES]
        (expiries,) = yield [("ZMSCORE", keyspace.accepted(queue), *asked)]
        unsure = [job_id for job_id, expiry in zip(asked, expiries, strict=True) if expiry is None]
        replies = iter((yield [("HGET", keyspace.job(job_id), "status") for job_id in unsure]) if unsure else ())
        answers += [expiry is None and has_ended(next(replies)) for expiry in expiries]
    return answers


def wait(job_id: str, timeout: float, tenant: str | None = None) -> Steps[JobResult]:
    give_up = time.monotonic() + timeout
    pause = 0.02
    while True:
        result = yield from fetch_one(job_id, tenant)
        left = give_up - time.monotonic()
        if result.status.ended or left <= 0:
            return result
        yield Sleep(min(pause, left))
        pause = min(pause * 1.5, 0.5)


def cancel(job_id: str, who: str, tenant: str | None = None) -> Steps[None]:
    origin = owner = accepted = None
    job_id = sendable(job_id)
    with contextlib.suppress(WrongType):
        ((origin, owner, accepted),) = yield [
            ("HMGET", keyspace.job(job_id), "origin", JobField.TENANT, JobField.ACCEPTED)
        ]
    if accepted is None and tenant is None:
        yield from _raise_if_lost(job_id)
    if not isinstance(origin, bytes) or accepted is None or not _is_of(tenant, owner):
        raise UnknownJob(job_id)  # a job of another app of this Redis too
    queue = origin.decode()
    keys = [*withdrawn_from(queue, job_id), keyspace.canceled(queue)]
    prefixes = (keyspace.EXECUTION, keyspace.EXECUTIONS)
    (before,) = yield [CANCEL.call(keys, [job_id, *prefixes, who, KEEP_CANCELLED_SECONDS])]
    if before == b"unknown":
        raise UnknownJob(job_id)
    if before in (b"finished", b"failed"):
        raise JobEnded(job_id, str(status_of(before)))


def withdrawn_from(queue: str, job_id: str) -> list[str]:
    """KEYS 1-10 of lua/shared/withdraw.lua."""
    q = queue
    lists = [keyspace.queue(q), keyspace.scheduled(q), keyspace.leases(q), keyspace.wip(q), keyspace.failed(q)]
    records = [keyspace.accepted(q), keyspace.dead(q), keyspace.results(job_id), keyspace.AUDIT]
    return [keyspace.job(job_id), *lists, *records]
