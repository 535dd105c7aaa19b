"""The OpenAI chat-completions dialect, as OpenAI, gateways and most other providers speak it.

Traps of httpx-aiohttp 0.2 that this file hides: refused, DNS, TLS and a reset after sending all come out as
httpx.ConnectTimeout, and only `__cause__` tells them apart; a malformed status line escapes as an aiohttp error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import httpx
from pydantic_core import from_json, to_json

from worker.failures import Broke, Broken, Reply
from worker.routes import Route

MAX_ANSWER_BYTES = 32 * 1024 * 1024


async def complete(
    client: httpx.AsyncClient, route: Route, body: Mapping[str, Any], idempotency_key: str, seconds: float
) -> Reply | Broken:
    """One attempt: POST {base_url}/chat/completions with the route's model, cut off after `seconds` of wall clock."""
    headers = {"content-type": "application/json", "accept": "application/json", "idempotency-key": idempotency_key}
    if route.key:
        headers["authorization"] = f"Bearer {route.key}"
    content = to_json({**body, "model": route.entry.model, "stream": False})
    try:
        request = client.build_request("POST", f"{route.base_url}/chat/completions", content=content, headers=headers)
        async with asyncio.timeout(seconds):
            response = await client.send(request, stream=True)
            try:
                raw = await _read(response)
            finally:
                await response.aclose()
    except TimeoutError:
        return Broken(Broke.SILENT, f"no whole answer within {seconds:.1f} s")
    except (httpx.HTTPError, aiohttp.ClientError, OSError) as error:
        return _broken(error)
    if raw is None:
        return Broken(Broke.GARBLED, f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return Reply(response.status_code, response.headers, _json(raw))


async def _read(response: httpx.Response) -> bytes | None:
    """The body, or None when it is longer than any completion."""
    chunks, size = [], 0
    async for chunk in response.aiter_bytes():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            return None
    return b"".join(chunks)


def _json(raw: bytes) -> Any:
    """None for what is not JSON, or nested so deeply that the result around it could not be read again."""
    try:
        return from_json(b"[[" + raw + b"]]")[0][0]
    except (ValueError, IndexError):
        return None


def _broken(error: Exception) -> Broken:
    """Whether the request can have been sent decides whether replaying it is safe."""
    cause = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ else error
    detail = f"{type(cause).__name__}: {cause}"[:200]
    if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Broken(Broke.UNREACHABLE, detail)
    if isinstance(cause, TimeoutError):
        return Broken(Broke.SILENT, detail)
    if isinstance(cause, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return Broken(Broke.GARBLED, detail)
    return Broken(Broke.RESET, detail)
