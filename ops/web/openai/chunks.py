"""A whole chat completion as the chunks of a stream, and a stream's events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import to_json

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": waiting\n\n"
PIECE = 1000  # characters of a text in one chunk
_HEAD = ("id", "created", "model", "system_fingerprint", "service_tier")


def event(data: Mapping[str, Any], name: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + to_json(data, inf_nan_mode="null") + b"\n\n"


def head_of(completion: Mapping[str, Any], job_id: str) -> dict[str, Any]:
    """What every chunk of one answer has."""
    known = {name: completion[name] for name in _HEAD if completion.get(name) is not None}
    filled = {"id": f"chatcmpl-{job_id}", "created": int(time.time()), "model": "", **known}
    return {**filled, "object": "chat.completion.chunk"}


def text_chunk(head: Mapping[str, Any], text: str, *, first: bool) -> dict[str, Any]:
    """A chunk with some text of the first choice."""
    delta: dict[str, Any] = {"role": "assistant", "content": text} if first else {"content": text}
    return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}


def chunks(
    completion: Mapping[str, Any], job_id: str, *, usage: bool, sent: str | None = None
) -> Iterator[dict[str, Any]]:
    """The chunks of a completion. `sent`: the text of the first choice that the client has already; None: nothing yet."""
    head = head_of(completion, job_id)
    for number, choice in enumerate(completion.get("choices") or ()):
        index = choice.get("index", number)
        for delta, logprobs in _deltas(choice, sent if number == 0 else None):
            part = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
            yield {**head, "choices": [part]}
        end = {"index": index, "delta": {}, "logprobs": None, "finish_reason": choice.get("finish_reason") or "stop"}
        yield {**head, "choices": [end]}
    if usage:
        yield {**head, "choices": [], "usage": completion.get("usage")}


def _deltas(choice: Mapping[str, Any], sent: str | None) -> Iterator[tuple[dict[str, Any], Any]]:
    """What a message is made of, each with its logprobs."""
    message = dict(choice.get("message") or {})
    content, calls = message.pop("content", None), message.pop("tool_calls", None)
    first = {"role": message.pop("role", "assistant")} if sent is None else {}
    text = content[len(sent or "") :] if isinstance(content, str) else content
    others = {name: value for name, value in message.items() if value is not None}
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)] if isinstance(text, str) else [text]
    logprobs = choice.get("logprobs")
    if first or others or pieces[:1] != [None]:
        opening = {**first, "content": pieces[0] if pieces else ""} if first or pieces else {}
        if opening or others:
            yield {**opening, **others}, logprobs
    for piece in pieces[1:]:
        yield {"content": piece}, None
    if isinstance(calls, list):
        yield {"tool_calls": [{"index": at, **call} for at, call in enumerate(calls) if isinstance(call, dict)]}, None
