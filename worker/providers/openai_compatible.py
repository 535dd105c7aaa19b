"""The OpenAI chat-completions dialect, as OpenAI, gateways and most other providers speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from worker.errors.classify import Broken, Reply
from worker.providers.http import ProviderRequest, Spoken, call
from worker.providers.sse import Assembly


async def complete(client: httpx.AsyncClient, wanted: ProviderRequest) -> Reply | Broken:
    """POST {base_url}/chat/completions with the route's model."""
    streams = wanted.first_token_seconds is not None
    body = {**wanted.body, "model": wanted.route.model, "stream": streams}
    if not streams:
        body.pop("stream_options", None)
    headers = {"authorization": f"Bearer {wanted.key}"} if wanted.key else {}
    return await call(
        client, wanted, Spoken("/chat/completions", headers, body, lambda: Assembly(wanted=_wanted(wanted.body)))
    )


def _wanted(body: Mapping[str, Any]) -> int:
    n = body.get("n")
    return n if isinstance(n, int) and n > 0 else 1
