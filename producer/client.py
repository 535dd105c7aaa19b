"""Producer: hand in jobs, read their results. AsyncProducer is the same for code that runs on an asyncio loop.

What is sent and what comes back is written once, as generators that yield the commands of one round trip (or a Pause)
and are given the replies; the two classes only drive them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import uuid4

import redis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from producer import keyspace
from producer.connection import connect, connect_async
from producer.environment import Environment, load_environment
from producer.errors import IdempotencyConflict, ServiceUnavailable, UnknownJob
from producer.job import JobResult, LLMJob, encode_job
from producer.keyspace import JobField
from producer.policy import Policies, load_policies
from producer.results import FIELDS, result_of, status_of
from producer.scripts import Command, Script, run, run_async

ENQUEUE = Script.load(Path(__file__).parent / "lua", "enqueue")
DEFAULT_QUEUE = "ai-tasks"
RESEND_FOR_SECONDS = 1.0  # then one last reply timeout: an enqueue fails within 2 s
REPLY_TIMEOUT_SECONDS = 1.0
BATCH_JOBS, BATCH_BYTES = 200, 1_000_000  # of one round trip

STATUSES = 1000  # asked for in one round trip

T = TypeVar("T")


@dataclass(frozen=True)
class Receipt:
    """What became of a submission. `conflict`: the key belongs to `job_id`, which has another body."""

    job_id: str
    outcome: Literal["accepted", "duplicate", "conflict"]


@dataclass(frozen=True)
class _Sleep:
    seconds: float


_Steps = Generator[Sequence[Command] | _Sleep, list[Any], T]


class Producer:
    """Blocking client.

    >>> producer = Producer.from_environment()
    >>> job_id = producer.enqueue(LLMJob(body={"messages": [{"role": "user", "content": "Hello"}]}))
    >>> producer.wait(job_id, timeout=60).text

    Errors: InvalidJob, IdempotencyConflict, UnknownJob; ServiceUnavailable within 2 s when Redis does not take the
    job, in which case it may be submitted again with the same idempotency key.
    """

    def __init__(self, client: redis.Redis, policies: Policies, queue: str = DEFAULT_QUEUE) -> None:
        self.client, self.policies, self.queue = client, policies, queue

    @classmethod
    def from_url(cls, url: str, policies: Policies, queue: str = DEFAULT_QUEUE) -> Producer:
        return cls(connect(url, reply_timeout=REPLY_TIMEOUT_SECONDS), policies, queue)

    @classmethod
    def from_environment(cls, environment: Environment | None = None) -> Producer:
        """REDIS_URL and POLICIES_DIR from the environment or `.env`."""
        environment = load_environment() if environment is None else environment
        return cls.from_url(_redis_url(environment), load_policies(environment))

    def enqueue(self, job: LLMJob, *, job_id: str | None = None) -> str:
        """Accept one job; its id. A known idempotency key gives the id of the job that holds it."""
        return self._drive(_enqueue_one(job, job_id, self.policies, self.queue))

    def enqueue_many(self, jobs: Iterable[LLMJob]) -> list[Receipt]:
        """Accept many, in order, some hundred a round trip. A conflict is told in its receipt, not raised."""
        return self._drive(_enqueue(((job, None) for job in jobs), self.policies, self.queue))

    def fetch(self, job_id: str) -> JobResult:
        """How the job stands now."""
        return self._drive(_fetch_one(job_id))

    def fetch_many(self, job_ids: Sequence[str]) -> list[JobResult | None]:
        """The same for many in one round trip; None for an unknown id."""
        return self._drive(_fetch(job_ids))

    def ended(self, job_ids: Sequence[str]) -> list[bool]:
        """Whether each job has ended (or is unknown): a light question to ask about many."""
        return self._drive(_ended(job_ids))

    def wait(self, job_id: str, timeout: float) -> JobResult:
        """The result once the job has ended, or how it stands after `timeout` seconds."""
        return self._drive(_wait(job_id, timeout))

    def close(self) -> None:
        self.client.close()

    def _drive(self, steps: _Steps[T]) -> T:
        replies: list[Any] = []
        while True:
            try:
                step = steps.send(replies) if replies else next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, _Sleep):
                time.sleep(step.seconds)
                replies = [None]
            else:
                replies = self._send(step)

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        give_up = time.monotonic() + RESEND_FOR_SECONDS
        while True:
            try:
                return run(self.client, commands)
            except (RedisConnectionError, RedisTimeoutError) as error:
                if time.monotonic() >= give_up:
                    raise _unavailable(error) from error
                time.sleep(random.uniform(0.02, 0.1))  # noqa: S311 - jitter
            except RedisError as error:
                raise _unavailable(error) from error


class AsyncProducer:
    """Producer for an asyncio loop; see there."""

    def __init__(self, client: redis.asyncio.Redis, policies: Policies, queue: str = DEFAULT_QUEUE) -> None:
        self.client, self.policies, self.queue = client, policies, queue

    @classmethod
    def from_url(cls, url: str, policies: Policies, queue: str = DEFAULT_QUEUE) -> AsyncProducer:
        client = connect_async(url, max_connections=4, reply_timeout=REPLY_TIMEOUT_SECONDS)
        return cls(client, policies, queue)

    @classmethod
    def from_environment(cls, environment: Environment | None = None) -> AsyncProducer:
        environment = load_environment() if environment is None else environment
        return cls.from_url(_redis_url(environment), load_policies(environment))

    async def enqueue(self, job: LLMJob, *, job_id: str | None = None) -> str:
        return await self._drive(_enqueue_one(job, job_id, self.policies, self.queue))

    async def enqueue_many(self, jobs: Iterable[LLMJob]) -> list[Receipt]:
        return await self._drive(_enqueue(((job, None) for job in jobs), self.policies, self.queue))

    async def fetch(self, job_id: str) -> JobResult:
        return await self._drive(_fetch_one(job_id))

    async def fetch_many(self, job_ids: Sequence[str]) -> list[JobResult | None]:
        return await self._drive(_fetch(job_ids))

    async def wait(self, job_id: str, timeout: float) -> JobResult:  # noqa: ASYNC109 - the same word as Producer's
        return await self._drive(_wait(job_id, timeout))

    async def close(self) -> None:
        await self.client.aclose()

    async def _drive(self, steps: _Steps[T]) -> T:
        replies: list[Any] = []
        while True:
            try:
                step = steps.send(replies) if replies else next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, _Sleep):
                await asyncio.sleep(step.seconds)
                replies = [None]
            else:
                replies = await self._send(step)

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        give_up = time.monotonic() + RESEND_FOR_SECONDS
        while True:
            try:
                return await run_async(self.client, commands)
            except (RedisConnectionError, RedisTimeoutError) as error:
                if time.monotonic() >= give_up:
                    raise _unavailable(error) from error
                await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311 - jitter
            except RedisError as error:
                raise _unavailable(error) from error


def _enqueue_one(job: LLMJob, job_id: str | None, policies: Policies, queue: str) -> _Steps[str]:
    (receipt,) = yield from _enqueue([(job, job_id)], policies, queue)
    if receipt.outcome == "conflict":
        raise IdempotencyConflict(receipt.job_id)
    return receipt.job_id


def _enqueue(jobs: Iterable[tuple[LLMJob, str | None]], policies: Policies, queue: str) -> _Steps[list[Receipt]]:
    receipts: list[Receipt] = []
    batch: list[Command] = []
    size = 0
    for job, job_id in jobs:
        data = encode_job(job)
        batch.append(_enqueue_call(job, job_id or uuid4().hex, data, policies, queue))
        size += len(data)
        if len(batch) >= BATCH_JOBS or size >= BATCH_BYTES:
            receipts += _receipts((yield batch))
            batch, size = [], 0
    if batch:
        receipts += _receipts((yield batch))
    return receipts


def _enqueue_call(job: LLMJob, job_id: str, data: bytes, policies: Policies, queue: str) -> Command:
    policy = policies.of(job.job_type)
    keys = [
        keyspace.idempotency(job.tenant_id, job.key_for(job_id)),
        keyspace.job(job_id),
        keyspace.queue(queue),
        keyspace.QUEUES,
        keyspace.accepted(queue),
    ]
    expires_ms = int((job.expires_after_seconds or policy.expires_after_seconds) * 1000)
    fields: Mapping[str, str | bytes | int] = {
        "data": data,
        "origin": queue,
        "description": f"{job.job_type} for {job.tenant_id}",  # shown by every RQ tool, so no prompt in it
        JobField.TENANT: job.tenant_id,
        JobField.TYPE: job.job_type,
        "timeout": int(policy.deadline_seconds),
        "started_at": "",
        "ended_at": "",
        "worker_name": "",
        "success_callback_name": "",
        "failure_callback_name": "",
        "stopped_callback_name": "",
    }
    flat = [word for pair in fields.items() for word in pair]
    at_head = "1" if job.priority else "0"
    return ENQUEUE.call(keys, [job_id, job.fingerprint(), expires_ms, at_head, keyspace.JOB, keyspace.WAKE, *flat])


def _receipts(replies: Sequence[Any]) -> list[Receipt]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise _unavailable(reply) from reply
    return [Receipt(job_id.decode(), outcome.decode()) for outcome, job_id in replies]


def _fetch_one(job_id: str) -> _Steps[JobResult]:
    (result,) = yield from _fetch([job_id])
    if result is None:
        raise UnknownJob(job_id)
    return result


def _fetch(job_ids: Sequence[str]) -> _Steps[list[JobResult | None]]:
    if not job_ids:
        return []
    commands: list[Command] = []
    for job_id in job_ids:
        commands.append(("HMGET", keyspace.job(job_id), *FIELDS))
        commands.append(("XREVRANGE", keyspace.results(job_id), "+", "-", "COUNT", 1))
    replies = yield commands
    return [
        result_of(job_id, fields, entries)
        for job_id, fields, entries in zip(job_ids, replies[::2], replies[1::2], strict=True)
    ]


def _ended(job_ids: Sequence[str]) -> _Steps[list[bool]]:
    ended: list[bool] = []
    for start in range(0, len(job_ids), STATUSES):
        replies = yield [("HGET", keyspace.job(job_id), "status") for job_id in job_ids[start : start + STATUSES]]
        ended += [status_of(reply).ended if isinstance(reply, bytes) else True for reply in replies]
    return ended


def _wait(job_id: str, timeout: float) -> _Steps[JobResult]:
    give_up = time.monotonic() + timeout
    pause = 0.02
    while True:
        result = yield from _fetch_one(job_id)
        left = give_up - time.monotonic()
        if result.status.ended or left <= 0:
            return result
        yield _Sleep(min(pause, left))
        pause = min(pause * 1.5, 0.5)


def _redis_url(environment: Environment) -> str:
    url = environment.get("REDIS_URL")
    if not url:
        raise ServiceUnavailable("REDIS_URL is not set — point it at the Redis that the workers use")
    return url


def _unavailable(error: BaseException) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"Redis did not take the command: {error} — nothing is lost; submit again when it is back"
    )
