"""Input items of a response as chat messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producer.errors import InvalidBody

_ROLES = ("assistant", "developer", "system", "user")  # a tuple takes a role of any type


def messages_of(given: Any) -> list[dict[str, Any]]:
    """The messages of an `input`: a text or a list of items. Raises InvalidBody, which names the item."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise InvalidBody("input", "should be a text, or a list of items that is not empty")
    messages: list[dict[str, Any]] = []
    for at, item in enumerate(given):
        if not isinstance(item, dict):
            raise InvalidBody(f"input.{at}", "should be an object")
        _add(messages, item, f"input.{at}")
    return messages


def _add(messages: list[dict[str, Any]], item: Mapping[str, Any], where: str) -> None:
    match item.get("type", "message"):
        case "message":
            if item.get("role") not in _ROLES:
                raise InvalidBody(f"{where}.role", f"should be one of {', '.join(_ROLES)}")
            messages.append({"role": item["role"], "content": _content(item.get("content"), where)})
        case "function_call":
            arguments = "{}" if item.get("arguments") is None else _text(item, "arguments", where)
            function = {"name": _text(item, "name", where), "arguments": arguments or "{}"}
            call = {"id": _call_id(item, where), "type": "function", "function": function}
            if not (messages and messages[-1]["role"] == "assistant"):  # calls of one turn are one message
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(call)
        case "function_call_output":
            output = item.get("output")
            content = output if isinstance(output, str) else _content(output, f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": _call_id(item, where), "content": content})
        case "reasoning":
            pass  # of another model: providers refuse what is not their own
        case kind:
            raise InvalidBody(f"{where}.type", f"{kind!r:.60} is not supported here")


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    text = item.get(name)
    if not isinstance(text, str):
        raise InvalidBody(f"{where}.{name}", "should be a text")
    return text


def _call_id(item: Mapping[str, Any], where: str) -> str:
    call_id = item.get("call_id")
    if not isinstance(call_id, str) or not call_id:
        raise InvalidBody(f"{where}.call_id", "is missing")
    return call_id


def _content(content: Any, where: str) -> Any:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidBody(f"{where}.content", "should be a text or a list of parts")
    parts = [_part(part, f"{where}.content.{at}") for at, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):  # what every provider takes
        return "".join(str(part["text"]) for part in parts)
    return parts


def _part(part: Any, where: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise InvalidBody(where, "should be an object")
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": _text(part, "text", where)}
        case "refusal":
            return {"type": "text", "text": _text(part, "refusal", where)}
        case "input_image" if isinstance(part.get("image_url"), str):
            detail = {"detail": _text(part, "detail", where)} if part.get("detail") is not None else {}
            return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
        case "input_file" if part.get("file_data"):
            file = {name: _text(part, name, where) for name in ("file_data", "filename") if part.get(name) is not None}
            return {"type": "file", "file": file}
        case "input_audio" if isinstance(part.get("input_audio"), dict):
            return {"type": "input_audio", "input_audio": part["input_audio"]}
        case kind:
            fix = "images need an image_url and files their file_data" if kind in ("input_image", "input_file") else ""
            raise InvalidBody(f"{where}.type", f"{kind!r:.60} is not supported here{': ' if fix else ''}{fix}")


def with_ids(given: Any, response_id: str) -> list[dict[str, Any]]:
    """The input as the items that /input_items lists."""
    items = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
    listed = []
    for at, item in enumerate(items):
        whole = {"type": "message", "id": f"item_{response_id}_{at}", "status": "completed", **item}
        if whole["type"] == "message" and isinstance(whole.get("content"), str):
            kind = "output_text" if whole.get("role") == "assistant" else "input_text"
            whole["content"] = [{"type": kind, "text": whole["content"]}]
        listed.append(whole)
    return listed
