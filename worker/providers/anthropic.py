"""The Anthropic Messages dialect, spoken natively: chat-completions bodies in, chat completions out.

What differs is told in docs/dialects.md. Stable blocks (instructions, tools) are marked for the provider's prompt cache where
they are long enough to be kept; a schema goes to `output_config`, other JSON is asked for in words.
Source: the Messages API reference, version 2023-06-01, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from worker.errors.classify import Broken, Reply
from worker.providers.anthropic_answer import Assembly, arguments, completion_of
from worker.providers.http import ProviderRequest, Spoken, call, unsayable
from worker.providers.json_instruction import json_instruction
from worker.routes.parameters import NATIVE_OUTPUT_TOKENS
from worker.routes.tokens import estimated

VERSION = "2023-06-01"
CACHED_FROM_TOKENS = 1024  # the shortest prefix that any model keeps; a mark on a shorter one is passed over

_CHOICE = {"auto": "auto", "none": "none", "required": "any"}
_PASSED = ("temperature", "top_p", "top_k", "service_tier", "thinking")


async def complete(client: httpx.AsyncClient, wanted: ProviderRequest) -> Reply | Broken:
    """POST {base_url}/v1/messages with the route's model. A body that cannot be said in this dialect goes
    elsewhere."""
    streams = wanted.first_token_seconds is not None
    try:
        sent, told = request_of(
            wanted.body,
            wanted.route.model,
            wanted.route.entry.max_output_tokens,
            stream=streams,
            caching=wanted.prompt_caching,
        )
    except Exception as error:  # noqa: BLE001 - bodies are of any shape, and what has no counterpart fails in any way
        return unsayable(error)
    wanted.dropped.extend(told)
    headers = {"anthropic-version": VERSION} | ({"x-api-key": wanted.key} if wanted.key else {})
    return await call(
        client, wanted, Spoken(path_of(wanted.route.base_url, "messages"), headers, sent, Assembly, completion_of)
    )


def path_of(base_url: str, name: str) -> str:
    """Base URLs of this API are written with and without their /v1."""
    return f"/{name}" if base_url.endswith("/v1") else f"/v1/{name}"


def request_of(
    body: Mapping[str, Any], model: str, longest: int | None, *, stream: bool, caching: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the Messages request, what of the body was changed, in words). `longest`: the route's maxOutputTokens.

    Raises ValueError, KeyError, TypeError or AttributeError for what has no counterpart.
    """
    messages, told = list(body["messages"]), list[str]()
    form = body.get("response_format") or {}
    schema = _schema(form)
    if schema is None and form.get("type") in ("json_object", "json_schema"):
        messages = [{"role": "system", "content": json_instruction(form)}, *messages]
        told.append("response_format as an instruction")
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or longest or NATIVE_OUTPUT_TOKENS
    sent: dict[str, Any] = {"model": model, "max_tokens": limit, "messages": list(_turns(messages)), "stream": stream}
    if not sent["messages"]:
        raise ValueError("no message that says anything")
    sent |= _steering(body, told) | _tools(body)
    if schema is not None:
        sent["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if system := [_text_block(text) for message in messages if _instructs(message) for text in _texts(message)]:
        sent["system"] = system
    if caching:
        _mark(sent)
    return sent, tuple(told)


def _steering(body: Mapping[str, Any], told: list[str]) -> dict[str, Any]:
    """What steers an answer, as far as it can be said; `told` hears of the rest."""
    steering = {name: body[name] for name in _PASSED if body.get(name) is not None}
    temperature = steering.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        steering["temperature"] = 1.0
        told.append("temperature at most 1")
    if temperature is not None and steering.pop("top_p", None) is not None:
        told.append("top_p beside temperature")  # newer models refuse the two together
    if steering.get("service_tier") not in (None, "auto", "standard_only"):
        del steering["service_tier"]
        told.append("service_tier")
    if user := body.get("user"):
        steering["metadata"] = {"user_id": user}
    if stop := body.get("stop"):
        steering["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    return steering


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
    """The conversation without its instructions; the answers of tools that follow each other are one turn of the user's. What
    says nothing is left out: an empty turn is refused."""
    turn: dict[str, Any] | None = None
    for message in messages:
        blocks = [] if _instructs(message) else list(_blocks(message))
        if not blocks:
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
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
        if content.strip():
            yield _text_block(content)
    else:
        for part in content or ():
            yield _part(part)
    for asked in message.get("tool_calls") or ():
        function = asked["function"]
        read = arguments(function.get("arguments"))
        yield {"type": "tool_use", "id": asked["id"], "name": function["name"], "input": read}


def _part(part: Any) -> dict[str, Any]:
    """One part of a message."""
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
    raise ValueError(f"a part of type {kind}")


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
