"""POST /v1/chat/completions: each request is a durable job, and its answer, error or stream is OpenAI's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic_core import to_json

from ops.web.draining import Draining
from ops.web.openai.chunks import DONE, KEEP_ALIVE, chunks, event, head_of, text_chunk
from ops.web.openai.errors import NoAnswer, ended_without_answer, late
from ops.web.openai.pending import ClientLeft, Pending, pending, to_the_end
from ops.web.openai.wanted import Wanted, wanted_of
from producer.answer_text import LivePieces
from producer.client import AsyncProducer
from producer.errors import FailoverError
from producer.intake import body, caller_of, read_object, turn
from producer.job import JobResult, JobStatus

BODY_BYTES = 20 * 1024 * 1024  # with images and files in it
# So long a stream waits for its first words before it sends its status: errors have their own, and an SDK sends a request again
# only while it has none. Heroku ends requests that have sent nothing after 30 s.
STATUS_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 10.0  # between two comments of a stream that waits
NOBODY_READS = 499  # the status in the log of a request whose client hung up

Routes = Callable[[], Awaitable[Collection[str]]]


class Chat:
    """The handler. `routes`: the names of the routes that workers have now."""

    def __init__(self, producer: AsyncProducer, routes: Routes, draining: Draining) -> None:
        self._producer, self._routes, self._draining = producer, routes, draining

    async def complete(self, request: Request) -> Response:
        """Answer a chat completion. The job is kept until it has ended, whatever happens to providers, workers, this process or
        the client; `Prefer: respond-async` gets a 202 in place of a long wait."""
        caller, raw = caller_of(request), await body(request, BODY_BYTES)
        async with turn(request, raw):
            asked = read_object(raw)
            wanted = wanted_of(asked, request.headers, caller, self._producer.policies, await self._routes())
        job = pending(request, raw, wanted, caller, self._producer, self._draining)
        wanted = wanted.handed_in()
        del raw, asked
        if wanted.stream:
            return await _opened(job, wanted)
        try:
            async with job as one:
                return _answer(one, wanted, await one.result())
        except ClientLeft:
            return Response(status_code=NOBODY_READS)


def _answer(job: Pending, wanted: Wanted, result: JobResult | None) -> Response:
    """The response of a request that is not streamed."""
    if result is None and (wanted.asynchronous or wanted.policy.when_late == "accept"):
        return accepted(job, preferred=wanted.asynchronous)
    if result is None:
        raise late(job.job_id)
    if result.status is not JobStatus.DONE:
        raise ended_without_answer(result)
    headers = {**_headers(result), **job.limits}
    return Response(to_json(completion_of(result), inf_nan_mode="null"), 200, headers, media_type="application/json")


def accepted(job: Pending, *, preferred: bool) -> Response:
    """The 202 of a job that goes on. `preferred`: the client asked for it."""
    url = f"/jobs/{job.job_id}"
    headers = {"Location": url, "x-failover-job-id": job.job_id, "Retry-After": "10", **job.limits}
    if preferred:
        headers["Preference-Applied"] = "respond-async"
    facts = {"id": job.job_id, "object": "failover.job", "status": "queued", "status_url": url}
    return JSONResponse(facts, 202, headers)


def completion_of(result: JobResult) -> dict[str, Any]:
    """The provider's completion; `model` is the one that answered."""
    completion = dict(result.completion or {})
    completion.setdefault("id", f"chatcmpl-{result.job_id}")
    completion.setdefault("object", "chat.completion")
    completion.setdefault("created", int(time.time()))
    return completion if result.model is None else {**completion, "model": result.model}


def _headers(result: JobResult) -> dict[str, str]:
    facts = {
        "job-id": result.job_id,
        "route": result.route,
        "degraded": result.degraded,
        "resolved-by": result.resolved_by,
    }
    return {f"x-failover-{name}": _header(value) for name, value in facts.items() if value}


def _header(value: str) -> str:
    """A header has no other characters, wherever a route's name comes from."""
    return "".join(each if " " <= each <= "~" else "?" for each in value)[:500]


async def _opened(job: contextlib.AbstractAsyncContextManager[Pending], wanted: Wanted) -> Response:
    """The response of a stream. What is known soon has its own status; after that the stream says it."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            one = await stack.enter_async_context(job)
            result = await (one.begun if wanted.job.live else one.result)(STATUS_SECONDS)
        except ClientLeft:
            return Response(status_code=NOBODY_READS)
        if result is not None and result.status is not JobStatus.DONE:
            raise ended_without_answer(result)
        headers = {"x-failover-job-id": one.job_id, **one.limits, "cache-control": "no-store"}
        if result is not None:
            headers |= _headers(result)
        held = stack.pop_all()
    stream = _live(one, wanted.usage) if wanted.job.live else _whole(one, wanted.usage, result)
    return StreamingResponse(to_the_end(stream, one, held, _failed), 200, headers, media_type="text/event-stream")


def _failed(error: FailoverError) -> bytes:
    kind = error.kind if isinstance(error, NoAnswer) else "server_error"
    return event({"error": {"message": str(error), "type": kind, "code": error.code, "param": None}})


async def _whole(job: Pending, usage: bool, result: JobResult | None) -> AsyncIterator[bytes]:
    """Comments while the job waits, then the whole answer: no client ever sees half of one."""
    while result is None:
        yield KEEP_ALIVE
        result = await job.result(KEEP_ALIVE_SECONDS)
        if result is None and time.monotonic() >= job.give_up:
            raise late(job.job_id)
    for part in _rest(job, result, usage, None):
        yield part


def _rest(job: Pending, result: JobResult, usage: bool, sent: str | None) -> list[bytes]:
    """The answer, without the text that was `sent` already. Raises NoAnswer if there is none, or it is another one."""
    if result.status is not JobStatus.DONE:
        raise ended_without_answer(result)
    completion = completion_of(result)
    if sent and not _begins(completion, sent):
        raise broken_off(job.job_id)
    events = [event(chunk) for chunk in chunks(completion, job.job_id, usage=usage, sent=sent)]
    return [*events, DONE]


def _begins(completion: Mapping[str, Any], sent: str) -> bool:
    try:
        content = completion["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return False
    return isinstance(content, str) and content.startswith(sent)


def broken_off(job_id: str) -> NoAnswer:
    """The error of a live stream that broke after its first words."""
    message = (
        f"the answer broke off after its first words; job {job_id} goes on: its whole answer will be at /jobs/{job_id}"
    )
    return NoAnswer(502, "server_error", "broken_off", message, {})


async def _live(job: Pending, usage: bool) -> AsyncIterator[bytes]:
    """The text as it comes; at the end what else the whole answer has. A break after the first words is an error."""
    pieces, head, quiet_since = LivePieces(), None, time.monotonic()
    while True:
        new, result = await job.more(pieces)
        for text in new:
            head = head or head_of({}, job.job_id)
            yield event(text_chunk(head, text, first=len(pieces.pieces) == len(new) and text is new[0]))
        if new:
            quiet_since = time.monotonic()
        if pieces.broken and (result is None or result.status is JobStatus.DONE):
            raise broken_off(job.job_id)
        if result is not None:
            for part in _rest(job, result, usage, pieces.text if pieces.pieces else None):
                yield part
            return
        if time.monotonic() >= job.give_up:
            raise late(job.job_id)
        if time.monotonic() - quiet_since >= KEEP_ALIVE_SECONDS:
            quiet_since = time.monotonic()
            yield KEEP_ALIVE
