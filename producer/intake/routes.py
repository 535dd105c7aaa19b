"""Jobs over HTTP: a client gets 202 and a job id, also while a provider would answer with an error.

`jobs(...)` is a router for the web process, or for your own FastAPI app. Bodies are read by hand, so that their size is
limited, the JSON is strict, and every error is a sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from redis.exceptions import OutOfMemoryError, RedisError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from producer.client import AsyncProducer, wait_ms
from producer.errors import (
    BadRequest,
    BodyTooLarge,
    FailoverError,
    Forbidden,
    InvalidBody,
    InvalidJob,
    JobCancelled,
    RedisFull,
    ServiceUnavailable,
    TooManyJobs,
)
from producer.job import JobResult, JobStatus, LLMJob
from producer.openapi import request_body
from producer.strict_json import parse

JOB_BYTES = 4 * 1024 * 1024
LARGE_BYTES = (
    256 * 1024
)  # larger bodies are parsed one at a time, because some JSON needs fifty times its size in memory
PASSED_OVER_BYTES = 128 * 1024 * 1024  # of a body that is too large: how much is read and ignored
BODY_SECONDS = 20.0
LONGEST_WAIT_SECONDS = 20.0
WAITERS = 200  # requests that wait for a job's end; further ones are answered without waiting

_SURROGATES = re.compile("[\ud800-\udfff]")

Prefer = Annotated[str, Header(description="`wait=20` holds the answer up to 20 s, in case the job ends in time.")]
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=512, description="As `idempotency_key` of the job; the body's own wins."),
]


HTTP = "http"


@dataclass(frozen=True)
class Caller:
    """Who sends a request. `who`: its name in the audit. `tenant`: the only tenant whose jobs it may submit, see and cancel;
    None: every tenant's.

    Authentication puts it into `request.state.caller`; without one, a request may act for everybody.
    """

    who: str = HTTP
    tenant: str | None = None


def caller_of(request: Request) -> Caller:
    caller: Caller = getattr(request.state, "caller", Caller())
    return caller


class Accepted(BaseModel):
    """An accepted job, which is kept until it has ended, and the URL of its state."""

    job_id: str
    status_url: str
    message: str


class ErrorFacts(BaseModel):
    message: str
    type: str
    code: str | None = None
    param: str | None = None


class ErrorBody(BaseModel):
    """The format of every error, as OpenAI's API has it."""

    error: ErrorFacts


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The body is not valid JSON"},
    401: {"model": ErrorBody, "description": "No token, or a wrong one"},
    403: {"model": ErrorBody, "description": "The token may not do this"},
    404: {"model": ErrorBody, "description": "Unknown"},
    409: {"model": ErrorBody, "description": "It collides with what stands"},
    413: {"model": ErrorBody, "description": "Too large"},
    422: {"model": ErrorBody, "description": "A field is wrong; the message names it"},
    429: {"model": ErrorBody, "description": "The tenant is over its rate; Retry-After says when to come back"},
    503: {"model": ErrorBody, "description": "Redis is away or full; nothing was accepted, try again"},
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: ERRORS[status] for status in statuses}


class Intake:
    """The handlers of the routes. `note`: returns a sentence that clients should know now (a pause), or ""."""

    def __init__(self, producer: AsyncProducer, note: Callable[[], Awaitable[str]]) -> None:
        self._producer, self._note = producer, note
        self._held, self._large = asyncio.Semaphore(WAITERS), asyncio.Semaphore(1)

    async def submit(self, request: Request, prefer: Prefer = "", idempotency_key: IdempotencyKey = None) -> Response:
        """Submit a job. An accepted job is kept until it has ended, even if providers, workers or this process fail."""
        caller, raw = caller_of(request), await body(request, JOB_BYTES)
        async with self._large if len(raw) > LARGE_BYTES else contextlib.nullcontext():
            job_id = await self._accept(raw, idempotency_key, caller)
        # The job is accepted: no failure below may make the client send it again.
        if seconds := _wait(prefer):
            with contextlib.suppress(ServiceUnavailable):
                result = await self._waited(job_id, seconds, caller)
                if result.status.ended:
                    return _response(result, 200, seconds)
        note = ""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            note = await self._note()
        message = f"accepted; the answer will be at /jobs/{job_id}. {note}".rstrip()
        accepted = Accepted(job_id=job_id, status_url=f"/jobs/{job_id}", message=message)
        return _response(accepted, 202, seconds, Location=accepted.status_url)

    async def _accept(self, raw: bytes, idempotency_key: str | None, caller: Caller) -> str:
        job = _job(raw, idempotency_key, caller.tenant)
        self._producer.policies.of(job.job_type)
        if wait := await wait_ms(self._producer, job.tenant_id):
            raise TooManyJobs(job.tenant_id, wait / 1000)
        return await self._producer.enqueue(job)

    async def show(self, request: Request, job_id: str, prefer: Prefer = "") -> Response:
        """The job's current state, with its answer once it is done. A cancelled job is not found any more, nor is a job of
        another tenant than the token's."""
        seconds = _wait(prefer)
        result = await self._waited(job_id, seconds, caller_of(request))
        if result.status is JobStatus.CANCELLED:
            raise JobCancelled(job_id)
        return _response(result, 200, seconds)

    async def cancel(self, request: Request, job_id: str) -> Response:
        """Cancel a job that has not ended. If it runs, its answer is ignored."""
        caller = caller_of(request)
        await self._producer.cancel(job_id, who=caller.who, tenant=caller.tenant)
        return _response(await self._producer.fetch(job_id, tenant=caller.tenant), 200, 0)

    async def _waited(self, job_id: str, seconds: float, caller: Caller) -> JobResult:
        if seconds <= 0 or self._held.locked():
            return await self._producer.fetch(job_id, tenant=caller.tenant)
        async with self._held:
            return await self._producer.wait(job_id, seconds, tenant=caller.tenant)


def jobs(producer: AsyncProducer, note: Callable[[], Awaitable[str]]) -> APIRouter:
    """The router with POST /jobs, GET /jobs/{id} and DELETE /jobs/{id}."""
    router, intake = APIRouter(tags=["jobs"]), Intake(producer, note)
    in_time: dict[int | str, dict[str, Any]] = {200: {"model": JobResult, "description": "It ended in time"}}
    router.post(
        "/jobs",
        status_code=202,
        response_model=Accepted,
        responses=in_time | errors(400, 401, 403, 409, 413, 422, 429, 503),
        openapi_extra=request_body(LLMJob, strict=True, job_type={"enum": list(producer.policies.job_types)}),
    )(intake.submit)
    one = "/jobs/{job_id}"
    router.get(one, response_model=JobResult, responses=errors(401, 403, 404, 422, 503))(intake.show)
    router.delete(one, response_model=JobResult, responses=errors(401, 403, 404, 409, 422, 503))(intake.cancel)
    return router


def _job(raw: bytes, idempotency_key: str | None, tenant: str | None) -> LLMJob:
    """The job of a body. A caller that is restricted to `tenant` need not name it, and may name no other. Raises
    BadRequest, InvalidJob, Forbidden."""
    data = read_json(raw)
    if tenant is not None and isinstance(data, dict):
        data.setdefault("tenant_id", tenant)
    job = LLMJob.parse(data)
    if tenant not in (None, job.tenant_id):
        raise Forbidden(f"this token submits jobs of the tenant {tenant} only — leave tenant_id out")
    if tenant is not None and job.priority:
        raise Forbidden("this token may not put a job before those of other tenants — leave priority out")
    if job.idempotency_key is None and idempotency_key is not None:
        return job.model_copy(update={"idempotency_key": idempotency_key})
    return job


async def body(request: Request, limit: int) -> bytes:
    """The body of a request, at most `limit` bytes; more are never kept in memory.

    Raises BodyTooLarge, after reading the remaining bytes: a client that is still sending would not read the error. Raises
    BadRequest for a body that does not arrive in BODY_SECONDS.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                elif size > PASSED_OVER_BYTES:
                    break
    except (TimeoutError, ClientDisconnect):
        if size <= limit:
            raise BadRequest(f"the body did not arrive completely within {BODY_SECONDS:.0f} s") from None
    if size > limit:
        raise BodyTooLarge(limit)
    return b"".join(chunks)


def read_json(raw: bytes) -> Any:
    """Parse strict JSON: no NaN, no lone surrogates, at most about 200 levels deep. Raises BadRequest."""
    try:
        return parse(raw)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON that can be read: {error}") from None


def install_errors(app: FastAPI) -> None:
    """Make the app answer our errors, Redis's and the framework's in one format (ErrorBody)."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, FailoverError)  # noqa: S101 - the handler is registered for it
        param = error.field if isinstance(error, (InvalidBody, InvalidJob)) else None
        return told_error(error.status, str(error), error.code, param, error.headers())

    async def frameworks(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        messages = {404: f"there is no {request.url.path} here", 405: f"{request.method} is not for {request.url.path}"}
        message = messages.get(error.status_code, str(error.detail))
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods(app, request)))
        return told_error(error.status_code, message, "http_error", None, headers)

    async def parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        return told_error(422, f"{field}: {first['msg']}", "invalid_parameter", field)

    async def redis_away(request: Request, error: Exception) -> Response:
        if isinstance(error, OutOfMemoryError):
            return await ours(request, RedisFull(str(error)))
        return await ours(request, ServiceUnavailable(f"Redis did not answer: {error} — try again"))

    app.add_exception_handler(FailoverError, ours)
    app.add_exception_handler(RedisError, redis_away)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(HTTPException, frameworks)


def _methods(app: FastAPI, request: Request) -> set[str]:
    """The HTTP methods that the app's routes accept at the request's path."""
    here = [
        methods for path, methods in app.openapi()["paths"].items() if compile_path(path)[0].match(request.url.path)
    ]
    return {method.upper() for methods in here for method in methods}


def told_error(
    status: int, message: str, code: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The response of an error. Lone surrogates in the message, which UTF-8 cannot encode, become U+FFFD."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    message = _SURROGATES.sub("\ufffd", message)
    facts = ErrorFacts(message=message, type=kind, code=code, param=param)
    return JSONResponse({"error": facts.model_dump()}, status, headers=headers)


def _response(model: BaseModel, status: int, waited: float, **headers: str) -> Response:
    if waited:
        headers["Preference-Applied"] = f"wait={waited:g}"
    return Response(model.model_dump_json(), status, headers, media_type="application/json")


def _wait(prefer: str) -> float:
    """Seconds of `wait=` in a Prefer header (RFC 7240), at most LONGEST_WAIT_SECONDS; 0 if there is none."""
    found = re.search(r"(?:^|[,;\s])wait\s{0,9}=\s{0,9}\"?(\d{1,9})", prefer)
    return min(float(found[1]), LONGEST_WAIT_SECONDS) if found else 0.0
