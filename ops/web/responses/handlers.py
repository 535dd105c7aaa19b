"""POST /v1/responses and what can be done with a response later."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic_core import to_json

from ops.web.draining import Draining
from ops.web.openai.chat import BODY_BYTES, KEEP_ALIVE_SECONDS, NOBODY_READS, Routes, accepted, broken_off
from ops.web.openai.chunks import KEEP_ALIVE, event
from ops.web.openai.errors import ended_without_answer, late
from ops.web.openai.pending import ClientLeft, Pending, pending, reading, to_the_end
from ops.web.openai.wanted import Wanted, bool_field, text_field, wanted_of
from ops.web.responses import records
from ops.web.responses.asked import chat_body
from ops.web.responses.events import Events, begins
from ops.web.responses.items import with_ids
from ops.web.responses.made import response_of
from ops.web.responses.records import PREFIX, Record
from producer.answer_text import LivePieces
from producer.client import AsyncProducer
from producer.errors import FailoverError
from producer.intake import body, caller_of, read_object, turn
from producer.job import JobResult, JobStatus

Stream = Annotated[bool, Query(description="The response as server-sent events, also while it is made.")]
After = Annotated[int | None, Query(ge=0, description="The number of the last event that the client has.")]


class Responses:
    """The handlers. `routes`: the names of the routes that workers have now."""

    def __init__(self, producer: AsyncProducer, routes: Routes, draining: Draining) -> None:
        self._producer, self._routes, self._draining = producer, routes, draining

    async def create(self, request: Request) -> Response:
        """Make a response. With `background` it is queued and can be read later; a stored one can be continued."""
        caller, raw = caller_of(request), await body(request, BODY_BYTES)
        async with turn(request, raw):
            asked = read_object(raw)
            wanted, asked = await self._wanted(request, asked)
        background, store = bool_field(asked, "background"), asked.get("store") is not False
        created_at = int(time.time())

        def record_of(job_id: str) -> Record:
            return Record(PREFIX + job_id, wanted.job.tenant_id, created_at, asked)

        before = (lambda job_id: records.writing(record_of(job_id), wanted.policy)) if store else None
        job = pending(request, raw, wanted, caller, self._producer, self._draining, before, stays=background)
        wanted = wanted.handed_in()
        del raw, before
        if wanted.stream:
            return await self._streamed(job, record_of)
        try:
            async with job as one:
                record = record_of(one.job_id).without_input()
                asked = {}
                result = None if background else await one.result()
                accepts = background or wanted.asynchronous or wanted.policy.when_late == "accept"
                if result is None and not accepts:
                    raise late(one.job_id)
                if result is None and not store:
                    return accepted(one, preferred=wanted.asynchronous)
                if result is not None and result.status is not JobStatus.DONE:
                    raise ended_without_answer(result)
                shown = result or JobResult(job_id=one.job_id, status=JobStatus.QUEUED)
                return _json(_made(record, shown), one, 200 if background or result else 202)
        except ClientLeft:
            return Response(status_code=NOBODY_READS)

    async def _wanted(self, request: Request, asked: dict[str, Any]) -> tuple[Wanted, dict[str, Any]]:
        """The job of a request, and what is kept of it."""
        caller, routes, policies = caller_of(request), await self._routes(), self._producer.policies
        previous = text_field(asked, "previous_response_id") or None
        chat = chat_body(asked, [])  # what is wrong is told before anything is read
        wanted = wanted_of(chat, request.headers, caller, policies, routes)
        if previous:
            before = await records.conversation(self._producer, previous, wanted.job.tenant_id)
            wanted = wanted_of(chat_body(asked, before), request.headers, caller, policies, routes)
        return wanted, {**asked, "stream": "live"} if wanted.job.live else asked

    async def show(
        self, request: Request, response_id: str, stream: Stream = False, starting_after: After = None
    ) -> Response:
        """A stored response, whole or as its events after `starting_after`."""
        record = await records.read(self._producer, response_id, caller_of(request).tenant)
        if not stream:
            return JSONResponse(_made(record, await self._producer.fetch(record.job_id)))
        held = contextlib.AsyncExitStack()
        one = await held.enter_async_context(reading(request, self._producer, self._draining, record.job_id))
        return _streamed_events(one, record, held, -1 if starting_after is None else starting_after)

    async def items(self, request: Request, response_id: str) -> Response:
        """The input of a stored response."""
        record = await records.read(self._producer, response_id, caller_of(request).tenant)
        items = with_ids(record.asked.get("input"), response_id)
        ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]}
        return JSONResponse({"object": "list", "data": items, "has_more": False, **ends})

    async def cancel(self, request: Request, response_id: str) -> Response:
        """Cancel a response that has not ended."""
        caller = caller_of(request)
        record = await records.read(self._producer, response_id, caller.tenant)
        await self._producer.cancel(record.job_id, who=caller.who)
        return JSONResponse(_made(record, await self._producer.fetch(record.job_id)))

    async def delete(self, request: Request, response_id: str) -> Response:
        """Forget a response. Its job and its ledger stay."""
        await records.delete(self._producer, await records.read(self._producer, response_id, caller_of(request).tenant))
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    async def _streamed(self, job: contextlib.AbstractAsyncContextManager[Pending], record_of: Any) -> Response:
        async with contextlib.AsyncExitStack() as stack:
            try:
                one = await stack.enter_async_context(job)
            except ClientLeft:
                return Response(status_code=NOBODY_READS)
            return _streamed_events(one, record_of(one.job_id).without_input(), stack.pop_all())


def _made(record: Record, result: JobResult) -> dict[str, Any]:
    return response_of(record.response_id, record.asked, record.created_at, result)


def _json(response: dict[str, Any], job: Pending, status: int) -> Response:
    headers = {"x-failover-job-id": job.job_id, **job.limits}
    return Response(to_json(response, inf_nan_mode="null"), status, headers, media_type="application/json")


def _streamed_events(
    job: Pending, record: Record, held: contextlib.AsyncExitStack, after: int = -1
) -> StreamingResponse:
    """The events after number `after`, until the response has ended; comments while it waits."""
    events = Events(job.job_id)

    async def stream() -> AsyncIterator[bytes]:
        async for made in _events(events, job, record):
            if made is None:
                yield KEEP_ALIVE
            elif made["sequence_number"] > after:
                yield event(made, made["type"])

    def failed(error: FailoverError) -> bytes:
        facts = {"code": error.code, "message": str(error), "param": None}
        return event({"type": "error", "sequence_number": events.number, **facts}, "error")

    headers = {"x-failover-job-id": job.job_id, "cache-control": "no-store", **job.limits}
    return StreamingResponse(to_the_end(stream(), job, held, failed), 200, headers, media_type="text/event-stream")


async def _events(events: Events, job: Pending, record: Record) -> AsyncIterator[dict[str, Any] | None]:
    """Each event of the response; None when nothing has come for a while."""
    for made in events.begin(_made(record, _running(job))):
        yield made
    pieces, quiet_since = LivePieces(), time.monotonic()
    while True:
        new, result = await job.more(pieces)
        for text in new:
            for made in events.more(text):
                yield made
        if (end := _end(events, job, record, pieces, result)) is not None:
            for made in end:
                yield made
            return
        if time.monotonic() >= job.give_up:
            raise late(job.job_id)
        if new:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= KEEP_ALIVE_SECONDS:
            quiet_since = time.monotonic()
            yield None


def _end(
    events: Events, job: Pending, record: Record, pieces: LivePieces, result: JobResult | None
) -> Iterator[dict[str, Any]] | None:
    """The last events, once the response has ended or its text broke off."""
    dead = result is not None and result.status is not JobStatus.DONE
    if not dead and (pieces.broken or (result is not None and not begins(result.completion, pieces.text))):
        error = {"code": "server_error", "message": str(broken_off(job.job_id))}
        return events.failed({**_made(record, _running(job)), "error": error})
    return None if result is None else events.end(_made(record, result))


def _running(job: Pending) -> JobResult:
    return JobResult(job_id=job.job_id, status=JobStatus.RUNNING)
