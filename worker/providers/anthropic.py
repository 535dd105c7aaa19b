"""The Anthropic Messages dialect, spoken natively: chat-completions bodies in, chat completions out.

What differs is told in docs/dialects.md. Stable blocks (instructions, tools) are marked for the provider's prompt cache where
they are long enough to be kept; a schema goes to `output_config`, other JSON is asked for in words.
Source: the Messages API reference, version 2023-06-01, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from worker.degrade import json_words
from worker.failures import Broken, Reply
from worker.providers.anthropic_answer import Assembly, arguments, completion_of
from worker.providers.http import Ask, Spoken, call
from worker.tokens import estimated

VERSION = "2023-06-01"
OUTPUT_TOKENS = 4096  # the API wants a limit; the route's maxOutputTokens where it has one
CACHED_FROM_TOKENS = 1024  # the shortest prefix that any model keeps; a mark on a shorter one is passed over

_CHOICE = {"auto": "auto", "none": "none", "required": "any"}
_PASSED = ("temperature", "top_p", "top_k", "metadata", "service_tier", "thinking")
_KNOWN = {
    *("messages", "model", "stream", "stream_options", "n", "tools", "tool_choice", "parallel_tool_calls", "stop"),
    *("max_tokens", "max_completion_tokens", "response_format", "user", *_PASSED),
}


async def complete(client: httpx.AsyncClient, ask: Ask) -> Reply | Broken:
    """POST {base_url}/v1/messages with the route's model. A body that cannot be said in this dialect is the job's fault."""
    streams = ask.first_token_seconds is not None
    try:
        sent, told = request_of(
            ask.body, ask.route.model, ask.route.entry.max_output_tokens, stream=streams, caching=ask.prompt_caching
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        problem = f"the body has no counterpart in Anthropic's Messages: {type(error).__name__} {error}"
        return Reply(400, {}, {"error": {"type": "invalid_request_error", "message": problem}})
    ask.dropped.extend(told)
    headers = {"anthropic-version": VERSION} | ({"x-api-key": ask.key} if ask.key else {})
    return await call(
        client, ask, Spoken(path_of(ask.route.base_url, "messages"), headers, sent, Assembly, completion_of)
    )


def path_of(base_url: str, name: str) -> str:
    """Base URLs of this API are written with and without their /v1."""
    return f"/{name}" if base_url.endswith("/v1") else f"/v1/{name}"


def request_of(
    body: Mapping[str, Any], model: str, longest: int | None, *, stream: bool, caching: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the Messages request, what of the body was dropped or changed, in words). `longest`: the route's maxOutputTokens."""
    messages, told = list(body["messages"]), [name for name in sorted(body.keys() - _KNOWN) if body[name] is not None]
    form = body.get("response_format") or {}
    schema = _schema(form)
    if schema is None and form.get("type") in ("json_object", "json_schema"):
        messages = [{"role": "system", "content": json_words(form)}, *messages]
        told.append("response_format as an instruction")
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or longest or OUTPUT_TOKENS
    sent: dict[str, Any] = {"model": model, "max_tokens": limit, "messages": list(_turns(messages)), "stream": stream}
    sent |= {name: body[name] for name in _PASSED if body.get(name) is not None and name != "metadata"}
    if isinstance(sent.get("temperature"), int | float) and sent["temperature"] > 1:
        sent["temperature"] = 1.0
        told.append("temperature at most 1")
    if sent.get("service_tier") not in (None, "auto", "standard_only"):
        del sent["service_tier"]
        told.append("service_tier")
    if user := body.get("user"):
        sent["metadata"] = {"user_id": user}
    if body.get("metadata"):
        told.append("metadata")
    if stop := body.get("stop"):
        sent["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if schema is not None:
        sent["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if system := [_text_block(text) for message in messages if _instructs(message) for text in _texts(message)]:
        sent["system"] = system
    sent |= _tools(body)
    if caching:
        _mark(sent)
    return sent, tuple(told)


def _schema(form: Mapping[str, Any]) -> Any:
    described = form.get("json_schema") if form.get("type") == "json_schema" else None
    return _closed(described.get("schema")) if isinstance(described, dict) else None


def _closed(schema: Any) -> Any:
    """Every object without further properties, as `output_config` wants it said."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    return {**closed, "additionalProperties": False} if schema.get("type") == "object" else closed


def _instructs(message: Mapping[str, Any]) -> bool:
    return message["role"] in ("system", "developer")


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _turns(messages: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The conversation without its instructions; the answers of tools that follow each other are one turn of the user's."""
    turn: dict[str, Any] | None = None
    for message in messages:
        if _instructs(message):
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
        blocks = list(_blocks(message))
        if turn is not None and turn["role"] == role:
            turn["content"] += blocks
            continue
        if turn is not None:
            yield turn
        turn = {"role": role, "content": blocks}
    if turn is not None:
        yield turn


def _blocks(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if message["role"] in ("tool", "function"):
        answer = "".join(_texts(message))
        yield {
            "type": "tool_result",
            "tool_use_id": message.get("tool_call_id") or message.get("name"),
            "content": answer,
        }
        return
    content = message.get("content")
    if isinstance(content, str):
        if content:
            yield _text_block(content)
    else:
        for part in content or ():
            yield _part(part)
    for asked in message.get("tool_calls") or ():
        function = asked["function"]
        read = arguments(function.get("arguments"))
        yield {"type": "tool_use", "id": asked["id"], "name": function["name"], "input": read}


def _part(part: Any) -> dict[str, Any]:
    """One part of a message; what has no counterpart goes as it is, for the provider to refuse."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return _text_block(part["text"])
    if kind == "image_url":
        url = part["image_url"]["url"] if isinstance(part["image_url"], dict) else part["image_url"]
        head, _, data = url.partition(";base64,")
        if head.startswith("data:") and data:
            source = {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
            return {"type": "image", "source": source}
        return {"type": "image", "source": {"type": "url", "url": url}}
    return part if isinstance(part, dict) else _text_block(str(part))


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    tools = body.get("tools")
    if not tools:
        return {}
    choice = body.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        told: dict[str, Any] = {"type": "tool", "name": choice["function"]["name"]}
    else:
        told = {"type": _CHOICE.get(choice, "auto")}
    if body.get("parallel_tool_calls") is False and told["type"] != "none":
        told["disable_parallel_tool_use"] = True
    return {"tools": [_tool(tool) for tool in tools], "tool_choice": told}


def _tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    function = tool["function"]
    empty = {"type": "object", "properties": {}}
    made = {"name": function["name"], "input_schema": function.get("parameters") or empty}
    made |= {name: function[name] for name in ("description", "strict") if function.get(name) is not None}
    return made


def _mark(sent: dict[str, Any]) -> None:
    """One mark at the end of what stays the same from job to job: tools, then instructions."""
    stable = sent.get("system") or sent.get("tools")
    if stable and estimated({"messages": sent.get("system"), "tools": sent.get("tools")}) >= CACHED_FROM_TOKENS:
        stable[-1] = {**stable[-1], "cache_control": {"type": "ephemeral"}}
