"""Producer submits jobs and reads their results. AsyncProducer is the same for code on an asyncio event loop.

The commands and the handling of replies are written once, in exchange.py; the two classes only send and wait.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from producer import exchange, telemetry
from producer.connection import another, connect, connect_async, redis_url
from producer.environment import Environment, load_environment
from producer.errors import RedisFull, ServiceUnavailable, WrongType
from producer.exchange import Receipt, Sleep, Steps
from producer.job import JobResult, LLMJob
from producer.policy import Policies, load_policies
from producer.redis_server.silence import transfer_seconds
from producer.scripts import Command, Sharing, ask, ask_async, size_of
from producer.wakeups import Wakeups

DEFAULT_QUEUE = "ai-tasks"
RESEND_FOR_SECONDS = 0.5  # with the timeouts of the last connect and reply, every call ends within 2 s
CONNECT_TIMEOUT_SECONDS = 0.5
REPLY_TIMEOUT_SECONDS = 1.0
LONGEST_CALL_SECONDS = 2.0


T = TypeVar("T")


class Producer:
    """Blocking client.

    >>> producer = Producer.from_environment()
    >>> job_id = producer.enqueue(LLMJob(body={"messages": [{"role": "user", "content": "Hello"}]}))
    >>> producer.wait(job_id, timeout=60).text

    Raises InvalidJob, IdempotencyConflict, UnknownJob, JobEnded; ServiceUnavailable within 2 s when Redis does not accept
    the job. The job may then be submitted again with the same idempotency key.
    """

    def __init__(self, client: redis.Redis, policies: Policies, queue: str = DEFAULT_QUEUE) -> None:
        self.client, self.policies, self.queue = client, policies, queue

    @classmethod
    def from_url(cls, url: str, policies: Policies, queue: str = DEFAULT_QUEUE) -> Producer:
        client = connect(url, connect_timeout=CONNECT_TIMEOUT_SECONDS, reply_timeout=REPLY_TIMEOUT_SECONDS)
        return cls(client, policies, queue)

    @classmethod
    def from_environment(cls, environment: Environment | None = None) -> Producer:
        """Read REDIS_URL and POLICIES_DIR and `.env`. Raises ConfigurationError, ServiceUnavailable."""
        environment = load_environment() if environment is None else environment
        telemetry.start(environment, "failover-producer")
        return cls.from_url(_redis_url(environment), load_policies(environment))

    def enqueue(self, job: LLMJob, *, job_id: str | None = None) -> str:
        """Submit one job. Returns its id; if its idempotency key is known already, the id of the job that has the key."""
        return self._drive(exchange.enqueue_one(job, job_id, self.policies, self.queue))

    def enqueue_many(self, jobs: Iterable[LLMJob]) -> list[Receipt]:
        """Submit many jobs, in order, up to 200 per round trip. A conflict is not raised, but is in the job's receipt."""
        return self._drive(exchange.enqueue(((job, None) for job in jobs), self.policies, self.queue))

    def fetch(self, job_id: str, *, tenant: str | None = None) -> JobResult:
        """The job's current state, with its answer once it is done. Raises UnknownJob, also for a job of another tenant
        than `tenant`."""
        return self._drive(exchange.fetch_one(job_id, tenant))

    def fetch_many(self, job_ids: Sequence[str]) -> list[JobResult | None]:
        """As `fetch` for many jobs in one round trip; None for an unknown id."""
        return self._drive(exchange.fetch(job_ids))

    def ended(self, job_ids: Sequence[str]) -> list[bool]:
        """Whether each job has ended or is unknown. Cheap also for many jobs."""
        return self._drive(exchange.ended(job_ids, self.queue))

    def wait(self, job_id: str, timeout: float, *, tenant: str | None = None) -> JobResult:
        """Wait until the job has ended, at most `timeout` seconds. Returns its state then. Raises UnknownJob, as `fetch`."""
        return self._drive(exchange.wait(job_id, timeout, tenant))

    def cancel(self, job_id: str, *, who: str, tenant: str | None = None) -> None:
        """Cancel a job that has not ended. If it runs, its answer is ignored. May be called again.

        Raises UnknownJob, as `fetch`; JobEnded for a job that is done or dead.
        """
        self._drive(exchange.cancel(job_id, who, tenant))

    def close(self) -> None:
        self.client.close()

    def _drive(self, steps: Steps[T]) -> T:
        replies: Any = None
        failed: WrongType | None = None
        while True:
            try:
                step = steps.send(replies) if failed is None else steps.throw(failed)
            except StopIteration as end:
                result: T = end.value
                return result
            replies = failed = None
            if isinstance(step, Sleep):
                time.sleep(step.seconds)
                continue
            try:
                replies = self._send(step)
            except WrongType as error:
                failed = error

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        give_up = time.monotonic() + RESEND_FOR_SECONDS
        while True:
            try:
                return ask(self.client, commands)
            except (RedisConnectionError, RedisTimeoutError) as error:
                if time.monotonic() >= give_up:
                    raise _unavailable(error) from error
                time.sleep(random.uniform(0.02, 0.1))  # noqa: S311 - jitter
            except RedisError as error:
                raise _unavailable(error) from error


class AsyncProducer:
    """Producer for asyncio, with the same methods and errors. One may be used on several event loops, such as those of several
    `asyncio.run`: each loop has connections of its own. `client` is used on the first loop."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        policies: Policies,
        queue: str = DEFAULT_QUEUE,
        longest_call_seconds: float = LONGEST_CALL_SECONDS,
    ) -> None:
        """`longest_call_seconds`: after so long without an answer Redis counts as away."""
        self._first, self.policies, self.queue, self._longest = client, policies, queue, longest_call_seconds
        self._clients: dict[asyncio.AbstractEventLoop, Sharing] = {}  # of the loops that are not closed
        self._wakeups: dict[asyncio.AbstractEventLoop, Wakeups] = {}

    @property
    def client(self) -> redis.asyncio.Redis:
        """The client of the running event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # asked outside of a loop, for use on the first one
            return self._first
        if loop not in self._clients:
            client = Sharing(another(self._first) if self._clients else self._first)
            for closed in [each for each in self._clients if each.is_closed()]:
                # without their loop its connections cannot be closed: the garbage collector does it
                self._clients.pop(closed).connection_pool.reset()  # type: ignore[no-untyped-call]
                self._wakeups.pop(closed, None)
            self._clients[loop] = client
        return self._clients[loop]

    @property
    def wakeups(self) -> Wakeups:
        """The wake-ups of the running event loop. They take one more connection."""
        client, loop = self.client, asyncio.get_running_loop()
        if loop not in self._wakeups:
            self._wakeups[loop] = Wakeups(another(client, max_connections=1, socket_timeout=None))
        return self._wakeups[loop]

    @classmethod
    def from_url(
        cls,
        url: str,
        policies: Policies,
        queue: str = DEFAULT_QUEUE,
        reply_timeout: float = REPLY_TIMEOUT_SECONDS,
        longest_call_seconds: float = LONGEST_CALL_SECONDS,
    ) -> AsyncProducer:
        """`reply_timeout`, `longest_call_seconds`: longer ones suit a process that may be busy itself."""
        client = connect_async(
            url, max_connections=4, connect_timeout=CONNECT_TIMEOUT_SECONDS, reply_timeout=reply_timeout
        )
        return cls(client, policies, queue, longest_call_seconds)

    @classmethod
    def from_environment(cls, environment: Environment | None = None) -> AsyncProducer:
        environment = load_environment() if environment is None else environment
        telemetry.start(environment, "failover-producer")
        return cls.from_url(_redis_url(environment), load_policies(environment))

    async def enqueue(self, job: LLMJob, *, job_id: str | None = None) -> str:
        return await self._drive(exchange.enqueue_one(job, job_id, self.policies, self.queue))

    async def submit(self, job: LLMJob, job_id: str, before: Sequence[Command] = ()) -> Receipt:
        """As `enqueue`, with the receipt. `before`: commands that are sent ahead of the job, in the same round trip."""
        (receipt,) = await self._drive(exchange.enqueue([(job, job_id)], self.policies, self.queue, before))
        return receipt

    async def submit_many(self, jobs: Iterable[tuple[LLMJob, str]]) -> list[Receipt]:
        """As `enqueue_many`, with the ids that the jobs get. Doing it again changes nothing."""
        return await self._drive(exchange.enqueue(jobs, self.policies, self.queue))

    async def enqueue_many(self, jobs: Iterable[LLMJob]) -> list[Receipt]:
        return await self._drive(exchange.enqueue(((job, None) for job in jobs), self.policies, self.queue))

    async def fetch(self, job_id: str, *, tenant: str | None = None) -> JobResult:
        return await self._drive(exchange.fetch_one(job_id, tenant))

    async def answer(self, job_id: str) -> JobResult | None:
        """The result of a done job, without its trail; None for any other job. In one command, for who needs the answer alone."""
        return await self._drive(exchange.answer(job_id))

    async def fetch_many(self, job_ids: Sequence[str]) -> list[JobResult | None]:
        return await self._drive(exchange.fetch(job_ids))

    async def ended(self, job_ids: Sequence[str]) -> list[bool]:
        return await self._drive(exchange.ended(job_ids, self.queue))

    async def wait(
        self,
        job_id: str,
        timeout: float,  # noqa: ASYNC109 - the same word as Producer's
        *,
        tenant: str | None = None,
    ) -> JobResult:
        """As Producer's, but without polling: the end of the job wakes it up."""
        give_up = time.monotonic() + timeout
        async with self.wakeups.watch(job_id) as watch:
            while True:
                result = await self.fetch(job_id, tenant=tenant)
                left = give_up - time.monotonic()
                if result.status.ended or left <= 0:
                    return result
                await watch.woken(left)

    async def cancel(self, job_id: str, *, who: str, tenant: str | None = None) -> None:
        await self._drive(exchange.cancel(job_id, who, tenant))

    async def close(self) -> None:
        if (wakeups := self._wakeups.pop(asyncio.get_running_loop(), None)) is not None:
            await wakeups.close()
        await self.client.aclose()

    async def _drive(self, steps: Steps[T]) -> T:
        replies: Any = None
        failed: WrongType | None = None
        while True:
            try:
                step = steps.send(replies) if failed is None else steps.throw(failed)
            except StopIteration as end:
                result: T = end.value
                return result
            replies = failed = None
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
                continue
            try:
                replies = await self.send(step)
            except WrongType as error:
                failed = error

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands that may be sent again, in one round trip. Raises ServiceUnavailable."""
        give_up = time.monotonic() + RESEND_FOR_SECONDS
        try:
            async with asyncio.timeout(self._longest + transfer_seconds(size_of(commands))):
                while True:
                    try:
                        return await ask_async(self.client, commands)
                    except (RedisConnectionError, RedisTimeoutError):
                        if time.monotonic() >= give_up:
                            raise
                        await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311 - jitter
        except (RedisError, TimeoutError) as error:
            raise _unavailable(error) from error


def _redis_url(environment: Environment) -> str:
    url = redis_url(environment)
    if not url:
        raise ServiceUnavailable("REDIS_URL is not set — point it at the Redis that the workers use")
    return url


def _unavailable(error: BaseException) -> ServiceUnavailable:
    if isinstance(error, OutOfMemoryError):
        return RedisFull(str(error))
    _, wrong_type, words = str(error).partition("WRONGTYPE ")
    if wrong_type:
        return WrongType(f"a key in Redis has the wrong type, another tool wrote it: {words}")
    why = str(error) or f"no answer within {LONGEST_CALL_SECONDS:.0f} s"
    return ServiceUnavailable(
        f"Redis did not answer: {why} — try again when it is back; a job with the same idempotency key is accepted once"
    )
