"""The server side of Anthropic's Messages API for the simulator: converts requests to chat bodies, completions to Messages.

It refuses what the API refuses (a missing max_tokens or version, unknown fields), so that tests find such requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_KNOWN = {
    *("model", "messages", "max_tokens", "system", "stream", "temperature", "top_p", "top_k", "stop_sequences"),
    *("tools", "tool_choice", "metadata", "service_tier", "thinking", "output_config"),
}
_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def problem(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """The error message of the API for this request; None if the API accepts it."""
    if "anthropic-version" not in headers:
        return "anthropic-version: header is required"
    if not isinstance(body.get("max_tokens"), int):
        return "max_tokens: Field required"
    if unknown := sorted(body.keys() - _KNOWN):
        return f"{unknown[0]}: Extra inputs are not permitted"
    roles = [message["role"] for message in body["messages"]]
    if not set(roles) <= {"user", "assistant"}:
        return "messages: Unexpected role"
    if (body.get("temperature") or 0) > 1:
        return "temperature: range: 0..1"
    return None


def error(status: int, details: Mapping[str, Any]) -> dict[str, Any]:
    """An error body of this API."""
    kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
    kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": details.get("message", "")}}


def chat_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request as a chat body for the simulated model."""
    chat: dict[str, Any] = {"model": body.get("model"), "stream": body.get("stream"), "messages": []}
    for message in body["messages"]:
        content = message["content"]
        if isinstance(content, list):
            content = "".join(str(block.get("text", block.get("content", ""))) for block in content)
        chat["messages"].append({"role": message["role"], "content": content})
    if tools := body.get("tools"):
        chat["tools"] = [
            {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}}
            for tool in tools
        ]
    choice = body.get("tool_choice") or {}
    if choice.get("type") == "tool":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif choice.get("type") == "any":
        chat["tool_choice"] = "required"
    if form := (body.get("output_config") or {}).get("format"):
        chat["response_format"] = {"type": "json_schema", "json_schema": {"schema": form["schema"]}}
    elif "Answer with one JSON object" in json.dumps(body.get("system") or ""):
        chat["response_format"] = {"type": "json_object"}
    return chat


def message(completion: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """A completion as a Message. A prefix with cache_control is billed as a cache write, like a first use."""
    choice = completion["choices"][0]
    content: list[dict[str, Any]] = []
    if text := choice["message"].get("content"):
        content.append({"type": "text", "text": text})
    for called in choice["message"].get("tool_calls") or ():
        function = called["function"]
        read = json.loads(function["arguments"])
        content.append({"type": "tool_use", "id": called["id"], "name": function["name"], "input": read})
    usage = completion["usage"]
    marked = "cache_control" in json.dumps([body.get("system"), body.get("tools")])
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    prompt = usage["prompt_tokens"] - cached
    return {
        "id": f"msg_{completion['id']}",
        "type": "message",
        "role": "assistant",
        "model": completion["model"],
        "content": content,
        "stop_reason": _STOP.get(choice["finish_reason"], "end_turn"),
        "stop_sequence": None,
        "usage": {
            "input_tokens": 0 if marked else prompt,
            "cache_creation_input_tokens": prompt if marked else 0,
            "cache_read_input_tokens": cached,
            "output_tokens": usage["completion_tokens"],
        },
    }


def events(whole: Mapping[str, Any], chunks: int) -> Iterator[bytes]:
    """A Message as server-sent events: start, pieces and stop of each block, then the stop reason."""

    def event(kind: str, **fields: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

    yield event("message_start", message={**whole, "content": [], "stop_reason": None})
    yield event("ping")
    for index, block in enumerate(whole["content"]):
        kind = "text" if block["type"] == "text" else "input_json"
        text = block["text"] if kind == "text" else json.dumps(block["input"])
        empty = {**block, "text": ""} if kind == "text" else {**block, "input": {}}
        yield event("content_block_start", index=index, content_block=empty)
        size = max(1, -(-len(text) // chunks))
        for start in range(0, len(text), size):
            piece = {"text" if kind == "text" else "partial_json": text[start : start + size]}
            yield event("content_block_delta", index=index, delta={"type": f"{kind}_delta", **piece})
        yield event("content_block_stop", index=index)
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield event("message_delta", delta=ended, usage={"output_tokens": whole["usage"]["output_tokens"]})
    yield event("message_stop")
