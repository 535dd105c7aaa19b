"""Bodies are read by hand, so that their size is limited, the JSON is strict, and every error is a sentence."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from producer.errors import BadRequest, BodyTooLarge, InvalidBody
from producer.strict_json import NUL, first_fault, has_nul, parse

JOB_BYTES = 4 * 1024 * 1024
LARGE_BYTES = (
    256 * 1024
)  # larger bodies are parsed one at a time, because some JSON needs fifty times its size in memory
PASSED_OVER_BYTES = 128 * 1024 * 1024  # of a body that is too large: how much is read and ignored
BODY_SECONDS = 20.0  # for each RENEWS_BYTES
RENEWS_BYTES = 128 * 1024


async def body(request: Request, limit: int) -> bytes:
    """The body of a request, at most `limit` bytes; more are never kept in memory.

    Raises BodyTooLarge, after reading the remaining bytes: a client that is still sending would not read the error. Raises
    BadRequest for a body that does not arrive in BODY_SECONDS.
    """
    chunks: list[bytes] = []
    size = renewed = 0
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(BODY_SECONDS) as time_limit:
            async for chunk in request.stream():
                size += len(chunk)
                if size - renewed >= RENEWS_BYTES:  # a large body on a slow link arrives too
                    renewed = size
                    time_limit.reschedule(clock() + BODY_SECONDS)
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


def turn(request: Request, raw: bytes) -> AbstractAsyncContextManager[None]:
    """Wait until the body may be parsed: large ones take turns, at all routes of the app together."""
    if len(raw) <= LARGE_BYTES:
        return nullcontext()
    state = request.app.state
    if not hasattr(state, "large_bodies"):
        state.large_bodies = asyncio.Semaphore(1)
    large_bodies: asyncio.Semaphore = state.large_bodies
    return large_bodies


def read_object(raw: bytes) -> dict[str, Any]:
    """As `read_json`, for an object without NUL characters, wherever they stand. Raises BadRequest, InvalidBody."""
    asked = read_json(raw)
    if not isinstance(asked, dict):
        raise InvalidBody("", "the body is a JSON object")
    if has_nul(raw):
        raise InvalidBody(*(first_fault(asked) or ("", NUL)))
    return asked


def read_json(raw: bytes) -> Any:
    """Parse strict JSON: no NaN, no lone surrogates, at most about 200 levels deep. Raises BadRequest."""
    try:
        return parse(raw)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON that can be read: {error}") from None
