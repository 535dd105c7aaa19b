"""A request of /v1/responses as a chat completion's body. What has no counterpart is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ops.web.openai.wanted import bool_field, object_field, text_field
from ops.web.responses.items import messages_of
from producer.errors import InvalidBody

# Fields with the same name and meaning in a chat completion.
_SAME = (
    "model",
    "temperature",
    "top_p",
    "parallel_tool_calls",
    "metadata",
    "user",
    "safety_identifier",
    "service_tier",
    "prompt_cache_key",
    "stream",
)
_OURS = frozenset(
    {
        "input",
        "instructions",
        "max_output_tokens",
        "tools",
        "tool_choice",
        "text",
        "reasoning",
        "previous_response_id",
        "background",
        "store",
    }
)
_WITHOUT_EFFECT = frozenset({"stream_options", "prompt_cache_retention", "max_tool_calls"})
_EMPTY = {"truncation": ("disabled",), "top_logprobs": (0,), "include": ([], ["reasoning.encrypted_content"])}


def refuse_unsupported(body: Mapping[str, Any]) -> None:
    """Raises InvalidBody, which names a parameter that would change the answer, and that nothing here knows."""
    for name, value in body.items():
        if value is None or name in _OURS or name in _SAME or name in _WITHOUT_EFFECT or _empty(name, value):
            continue
        raise InvalidBody(name, "is not supported here: docs/openai.md lists what is")
    bool_field(body, "store")
    if bool_field(body, "background") and body.get("store") is False:
        raise InvalidBody("store", "a response in background is stored: leave `store` out")


def _empty(name: str, value: Any) -> bool:
    return any(value == each and not isinstance(value, bool) for each in _EMPTY.get(name, ()))


def chat_body(body: Mapping[str, Any], before: list[dict[str, Any]]) -> dict[str, Any]:
    """The chat completion's body. `before`: the messages of the responses that this one continues. Raises InvalidBody."""
    refuse_unsupported(body)
    chat: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    instructions = text_field(body, "instructions")
    opening = [{"role": "system", "content": instructions}] if instructions else []
    chat["messages"] = [*opening, *before, *messages_of(body.get("input"))]
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    if tools := _tools(body.get("tools")):
        chat["tools"] = tools
    if (choice := _tool_choice(body.get("tool_choice"))) is not None and tools:
        chat["tool_choice"] = choice
    chat |= _text(object_field(body, "text"))
    if (effort := object_field(body, "reasoning").get("effort")) is not None:
        chat["reasoning_effort"] = effort
    return chat


def _tools(tools: Any) -> list[dict[str, Any]]:
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise InvalidBody("tools", "should be a list")
    found = []
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            kind = tool.get("type") if isinstance(tool, dict) else None
            raise InvalidBody(f"tools.{at}.type", f"{kind!r:.60} is not supported here: only functions are")
        function = {
            name: tool[name] for name in ("name", "description", "parameters", "strict") if tool.get(name) is not None
        }
        found.append({"type": "function", "function": function})
    return found


def _tool_choice(choice: Any) -> Any:
    if choice is None or choice in ("auto", "none", "required"):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}
    raise InvalidBody("tool_choice", "is not supported here: auto, none, required, or a function by its name")


def _text(text: Mapping[str, Any]) -> dict[str, Any]:
    chat: dict[str, Any] = {} if text.get("verbosity") is None else {"verbosity": text["verbosity"]}
    form = text.get("format")
    if form is None:
        return chat
    match form.get("type") if isinstance(form, dict) else form:
        case "text" if isinstance(form, dict):
            return chat
        case "json_object" if isinstance(form, dict):
            return {**chat, "response_format": {"type": "json_object"}}
        case "json_schema" if isinstance(form, dict):
            schema = {name: value for name, value in form.items() if name != "type"}
            return {**chat, "response_format": {"type": "json_schema", "json_schema": schema}}
    raise InvalidBody("text.format", "should have the type text, json_object or json_schema")
