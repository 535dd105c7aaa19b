"""The OpenAI chat-completions dialect, as OpenAI, gateways and most other providers speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from worker.errors.classify import Broken, Reply
from worker.providers.http import Ask, Spoken, call
from worker.providers.sse import Assembly


async def complete(client: httpx.AsyncClient, ask: Ask) -> Reply | Broken:
    """POST {base_url}/chat/completions with the route's model."""
    streams = ask.first_token_seconds is not None
    body = {**ask.body, "model": ask.route.model, "stream": streams}
    if not streams:
        body.pop("stream_options", None)
    headers = {"authorization": f"Bearer {ask.key}"} if ask.key else {}
    return await call(
        client, ask, Spoken("/chat/completions", headers, body, lambda: Assembly(wanted=_wanted(ask.body)))
    )


def _wanted(body: Mapping[str, Any]) -> int:
    n = body.get("n")
    return n if isinstance(n, int) and n > 0 else 1
