"""One request of /v1 and its job: handed in once, also when the client or an SDK sends it again, and waited for by a wake-up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import uuid4

from fastapi import Request

from ops.web.draining import Draining
from ops.web.openai.errors import restarting
from ops.web.openai.wanted import Wanted
from producer import keyspace
from producer.answer_text import LivePieces
from producer.client import AsyncProducer
from producer.errors import FailoverError, IdempotencyConflict, ServiceUnavailable, WrongType
from producer.intake import Caller, caller_of
from producer.intake.rates import counted
from producer.job import JobResult
from producer.results import has_ended
from producer.scripts import Command
from producer.wakeups import Watch

BROKEN_SECONDS = 2.0  # so long a stream that broke off waits for the end of its job
LOOK_SECONDS = 1.0  # after so long a live answer is looked at without a message, and any while Redis is away
RETRY_SECONDS = 3600  # so long an SDK's own retry finds the job of its first request; SDKs give up after 10 minutes


class ClientLeft(Exception):
    """The client hung up. Nobody reads what is sent now."""


@dataclass
class Pending:
    """One job that a request waits for. `left`: done when the client has hung up; `cancels`: the job is cancelled then.
    `limits`: headers with the tenant's rate."""

    producer: AsyncProducer
    caller: Caller
    job_id: str
    watch: Watch
    draining: Draining
    left: asyncio.Future[None]
    known: bool  # the job may have ended before this request
    give_up: float  # monotonic
    cancels: bool = False
    limits: Mapping[str, str] = field(default_factory=dict)

    async def result(self, within: float = float("inf")) -> JobResult | None:
        """The result of the job once it has ended; None if it has not within so many seconds, or the request's own time.

        Raises ClientLeft; NoAnswer when this process ends. While Redis is away it waits on: the job is not away.
        """
        until = min(self.give_up, time.monotonic() + within)
        while True:
            look_by = until
            if self.known:
                try:
                    if (result := await self._ended()) is not None:
                        return result
                except WrongType:
                    raise
                except ServiceUnavailable:
                    look_by = min(until, time.monotonic() + LOOK_SECONDS)
            self.known = True
            if not await self._woken(look_by):
                return None

    async def _ended(self) -> JobResult | None:
        """The result of the job, if it has ended."""
        if (answer := await self.producer.answer(self.job_id)) is not None:
            return answer
        result = await self.producer.fetch(self.job_id)
        return result if result.status.ended else None

    async def begun(self, within: float) -> JobResult | None:
        """Wait until a live answer has its first words or the job has ended, at most so many seconds. Returns and raises as
        `result`."""
        until, pieces = min(self.give_up, time.monotonic() + within), LivePieces()
        while not pieces.read and time.monotonic() < until:
            _, result = await self.more(pieces)
            if result is not None:
                return result
        return None

    async def more(self, pieces: LivePieces) -> tuple[list[str], JobResult | None]:
        """What has come of a live answer since the last call, and the result once the job has ended; waits for either, at most
        for a moment. Raises as `result`."""
        key, status = keyspace.live(self.job_id), keyspace.job(self.job_id)
        new: list[str] = []
        try:
            entries, rq_status = await self.producer.send(
                [("LRANGE", key, pieces.read, -1), ("HGET", status, "status")]
            )
            new = pieces.add(entries)
            if has_ended(rq_status):
                return new, await self.producer.fetch(self.job_id)
        except WrongType:
            raise
        except ServiceUnavailable:
            pass
        if pieces.broken:  # a refusal ends the job soon, and has its own words
            return new, await self.result(BROKEN_SECONDS)
        if not new:
            await self._woken(min(self.give_up, time.monotonic() + LOOK_SECONDS))
        return new, None

    async def _woken(self, until: float) -> bool:
        """Wait for news of the job; False once the time is over. Raises ClientLeft and NoAnswer."""
        if self.left.done():
            await self.leave()
            raise ClientLeft
        if self.draining.begun:
            raise restarting(self.job_id)
        seconds = until - time.monotonic()
        if seconds <= 0:
            return False
        await self.watch.woken(seconds)
        return True

    async def leave(self) -> None:
        """The client has hung up."""
        if self.cancels:
            with contextlib.suppress(FailoverError):  # it has ended meanwhile, or Redis is away
                await self.producer.cancel(self.job_id, who=self.caller.who)


@contextlib.asynccontextmanager
async def pending(
    request: Request,
    raw: bytes,
    wanted: Wanted,
    caller: Caller,
    producer: AsyncProducer,
    draining: Draining,
    before: Callable[[str], Sequence[Command]] | None = None,
    *,
    stays: bool = False,
) -> AsyncIterator[Pending]:
    """Hand the request's job in and watch it. `before`: writes that belong to a job id, sent ahead of the job. `stays`: the job
    goes on when the client hangs up, whatever its type says.

    Raises TooManyJobs, IdempotencyConflict, InvalidJob, ServiceUnavailable.
    """
    record = _retry_record(caller, wanted, raw) if wanted.by_sdk and wanted.job.idempotency_key is None else None
    before_this = await _first_job(producer, record) if record is not None and wanted.retry else None
    job_id, known = before_this or uuid4().hex, before_this is not None
    async with producer.wakeups.watch(job_id) as watch:
        rate = await counted(producer, wanted.job.tenant_id)
        writes = list(before(job_id)) if before is not None else []
        if record is not None:
            writes.append(("SET", record, job_id, "EX", RETRY_SECONDS))
        watch.forget()
        receipt = await producer.submit(wanted.job, job_id, writes)
        if receipt.outcome == "conflict":
            raise IdempotencyConflict(receipt.job_id)
        wanted, give_up = wanted.handed_in(), time.monotonic() + wanted.seconds
        del raw, writes, before
        known = known or receipt.outcome == "duplicate"
        async with _other(producer, receipt.job_id, job_id, watch) as ours, _left(request, ours) as left:
            with draining.waking(ours.wake):
                cancels = wanted.policy.when_client_leaves == "cancel" and not stays
                facts = (producer, caller, receipt.job_id, ours, draining, left, known, give_up)
                yield Pending(*facts, cancels=cancels, limits=rate.headers())


@contextlib.asynccontextmanager
async def reading(request: Request, producer: AsyncProducer, draining: Draining, job_id: str) -> AsyncIterator[Pending]:
    """Watch a job that was handed in before, as long as the client reads."""
    async with producer.wakeups.watch(job_id) as watch, _left(request, watch) as left:
        with draining.waking(watch.wake):
            yield Pending(producer, caller_of(request), job_id, watch, draining, left, known=True, give_up=float("inf"))


async def to_the_end(
    stream: AsyncIterator[bytes],
    job: Pending,
    held: contextlib.AsyncExitStack,
    failed: Callable[[FailoverError], bytes],
) -> AsyncIterator[bytes]:
    """The stream, with its error as the event that `failed` makes of it; at its end nobody waits for the job any more."""
    async with held:
        try:
            async for part in stream:
                yield part
        except ClientLeft:
            return
        except FailoverError as error:
            yield failed(error)
        except (asyncio.CancelledError, GeneratorExit):
            await asyncio.shield(asyncio.ensure_future(job.leave()))
            raise


@contextlib.asynccontextmanager
async def _other(producer: AsyncProducer, job_id: str, watched: str, watch: Watch) -> AsyncIterator[Watch]:
    """The watch of the job that the request has got, which may be one that was handed in before."""
    if job_id == watched:
        yield watch
        return
    async with producer.wakeups.watch(job_id) as other:
        yield other


@contextlib.asynccontextmanager
async def _left(request: Request, watch: Watch) -> AsyncIterator[asyncio.Future[None]]:
    """A future that is done when the client hangs up; the watch wakes then."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(gone())
    task.add_done_callback(lambda _: watch.wake())
    try:
        yield task
    finally:
        task.cancel()


async def _first_job(producer: AsyncProducer, record: str) -> str | None:
    """The job of the request that the SDK sends again; None if it is not known, or was cancelled when the client gave up."""
    (found,) = await producer.send([("GET", record)])
    if found is None:
        return None
    (status,) = await producer.send([("HGET", keyspace.job(found.decode()), "status")])
    return None if status == b"canceled" else str(found.decode())


def _retry_record(caller: Caller, wanted: Wanted, raw: bytes) -> str:
    """The key under which an SDK's retry finds the job of its first request: the same token, tenant and bytes."""
    facts = (caller.who, wanted.job.tenant_id, wanted.job.job_type)
    return keyspace.RETRY + sha256("\0".join(facts).encode() + b"\0" + raw).hexdigest()
