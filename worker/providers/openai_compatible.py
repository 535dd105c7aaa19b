"""The OpenAI chat-completions dialect, as OpenAI, gateways and most other providers speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.errors.classify import Broken, Reply
from worker.providers.http import ProviderRequest, Spoken, call
from worker.providers.sse import Assembly, as_arguments
from worker.providers.transport import Transport


async def complete(transport: Transport, wanted: ProviderRequest) -> Reply | Broken:
    """POST {base_url}/chat/completions with the route's model."""
    streams = wanted.first_token_seconds is not None
    body = {**wanted.body, "model": wanted.route.model, "stream": streams}
    if not streams:
        body.pop("stream_options", None)
    headers = {"authorization": f"Bearer {wanted.key}"} if wanted.key else {}
    return await call(
        transport,
        wanted,
        Spoken("/chat/completions", headers, body, lambda: Assembly(wanted=_wanted(wanted.body)), as_completion),
    )


def _wanted(body: Mapping[str, Any]) -> int:
    n = body.get("n")
    return n if isinstance(n, int) and n > 0 else 1


def as_completion(body: Any) -> Any:
    """A whole answer in the form that a streamed one comes in: tool arguments that are objects become text,
    and a call without an id gets one."""
    try:
        for choice in body["choices"]:
            for number, call in enumerate(choice["message"].get("tool_calls") or ()):
                call["id"] = call.get("id") or f"call_{number}"
                if not isinstance(call["function"].get("arguments", ""), str):
                    call["function"]["arguments"] = as_arguments(call["function"]["arguments"])
    except (TypeError, KeyError, AttributeError):
        return body  # whoever classifies it says what is wrong
    return body
