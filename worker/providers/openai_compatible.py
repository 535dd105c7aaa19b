"""The OpenAI chat-completions dialect, as OpenAI, gateways and most other providers speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.errors.classify import Broken, Reply
from worker.providers.assembly import Assembly
from worker.providers.http import ProviderRequest, Spoken, call
from worker.providers.message_pieces import new_id, with_text_arguments
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
    """A whole answer in the form that a streamed one comes in: tool arguments that are objects become text, a call without
    an id gets one, and what stands elsewhere at some gateways goes to its place."""
    inner = body.get("result") if isinstance(body, dict) and "choices" not in body else None
    if isinstance(inner, dict) and "choices" in inner:
        body = inner  # Cloudflare's envelope
    try:
        for index, choice in enumerate(body["choices"]):
            if not isinstance(choice.get("message"), dict):
                _find_message(choice)
            message = choice.get("message")
            if isinstance(message, dict) and (message.get("tool_calls") or message.get("function_call")):
                _complete(message, f"{body.get('id')} {body.get('created')} {index}")
            if not body.get("usage") and isinstance(choice.get("usage"), dict):
                body["usage"] = choice["usage"]
        if not body.get("usage") and isinstance(of_groq := body.get("x_groq"), dict):
            body["usage"] = of_groq.get("usage")
    except (TypeError, KeyError, AttributeError):
        return body  # whoever classifies it says what is wrong
    return body


def _find_message(choice: dict[str, Any]) -> None:
    """As a stream's delta, or as the text of the older completions."""
    if isinstance(delta := choice.get("delta"), dict):
        choice["message"] = {"role": "assistant", "content": None, **delta}
    elif isinstance(text := choice.get("text"), str):
        choice["message"] = {"role": "assistant", "content": text}


def _complete(message: dict[str, Any], seed: str) -> None:
    for number, asked in enumerate(message.get("tool_calls") or ()):
        with_text_arguments(function := asked.get("function"))
        if isinstance(function, dict):
            asked["id"] = asked.get("id") or new_id(seed, number, function)
    with_text_arguments(message.get("function_call"))
