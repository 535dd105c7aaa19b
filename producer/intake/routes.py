"""POST /jobs, GET /jobs/{id} and DELETE /jobs/{id}."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel
from redis.exceptions import RedisError

from producer.client import AsyncProducer
from producer.errors import Forbidden, JobCancelled, ServiceUnavailable
from producer.intake.caller import Caller, caller_of
from producer.intake.errors import errors
from producer.intake.openapi import request_body
from producer.intake.rates import counted
from producer.intake.reading import JOB_BYTES, body, read_json, turn
from producer.job import JobResult, JobStatus, LLMJob
from producer.telemetry.context import TRACEPARENT, carried

LONGEST_WAIT_SECONDS = 20.0
WAITERS = 200  # requests that wait for a job's end; further ones are answered without waiting

Prefer = Annotated[str, Header(description="`wait=20` holds the answer up to 20 s, in case the job ends in time.")]
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=512, description="As `idempotency_key` of the job; the body's own wins."),
]


class Accepted(BaseModel):
    """An accepted job, which is kept until it has ended, and the URL of its state."""

    job_id: str
    status_url: str
    message: str


class Intake:
    """The handlers of the routes. `note`: returns a sentence that clients should know now (a pause), or ""."""

    def __init__(self, producer: AsyncProducer, note: Callable[[], Awaitable[str]]) -> None:
        self._producer, self._note = producer, note
        self._held = asyncio.Semaphore(WAITERS)

    async def submit(self, request: Request, prefer: Prefer = "", idempotency_key: IdempotencyKey = None) -> Response:
        """Submit a job. An accepted job is kept until it has ended, even if providers, workers or this process fail."""
        caller, raw = caller_of(request), await body(request, JOB_BYTES)
        async with turn(request, raw):
            job_id = await self._accept(raw, idempotency_key, caller, request.headers.get(TRACEPARENT))
        # The job is accepted: no failure below may make the client send it again.
        if seconds := preferred_wait(prefer):
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

    async def _accept(self, raw: bytes, idempotency_key: str | None, caller: Caller, traceparent: str | None) -> str:
        job = _job(raw, idempotency_key, caller.tenant)
        if traceparent:
            job = job.model_copy(update={"metadata": carried(job.metadata, traceparent)})
        self._producer.policies.of(job.job_type)
        await counted(self._producer, job.tenant_id)
        return await self._producer.enqueue(job)

    async def show(self, request: Request, job_id: str, prefer: Prefer = "") -> Response:
        """The job's current state, with its answer once it is done. A cancelled job is not found any more, nor is a job of
        another tenant than the token's."""
        seconds = preferred_wait(prefer)
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


def _response(model: BaseModel, status: int, waited: float, **headers: str) -> Response:
    if waited:
        headers["Preference-Applied"] = f"wait={waited:g}"
    return Response(model.model_dump_json(), status, headers, media_type="application/json")


def preferred_wait(prefer: str, most: float = LONGEST_WAIT_SECONDS) -> float:
    """Seconds of `wait=` in a Prefer header (RFC 7240), at most `most`; 0 if there is none."""
    found = re.search(r"(?:^|[,;\s])wait\s{0,9}=\s{0,9}\"?(\d{1,9})", prefer)
    return min(float(found[1]), most) if found else 0.0
