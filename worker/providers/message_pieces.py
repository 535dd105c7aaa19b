"""The pieces of a streamed message, put together: texts, parts, tool calls, and fields that nobody here knows, which are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from pydantic_core import from_json

TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
PARTS = "\0parts"  # of content, beside its texts: [number of texts before it, part], until the message is finished
_SET_ONCE = frozenset(
    {
        "role",
        "id",
        "type",
        "name",
        "model",
        "index",
        "format",
        "expires_at",
        "status",
        "signature",
        "thought_signature",
        "url",
    }
)


def repaired(text: str) -> str:
    """The text with its halves of characters put together, and those that are alone replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def repaired_all(value: Any) -> Any:
    """The same for every text inside."""
    if isinstance(value, str):
        return repaired(value)
    if isinstance(value, list):
        return [repaired_all(each) for each in value]
    return {repaired(name): repaired_all(each) for name, each in value.items()} if isinstance(value, dict) else value


def as_arguments(arguments: Any) -> str:
    """A tool call's arguments as JSON text, which some send as an object, and some as null."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def with_text_arguments(function: Any) -> None:
    """Make the arguments of a function that is called JSON text, in place."""
    if isinstance(function, dict) and not isinstance(function.get("arguments", ""), str):
        function["arguments"] = as_arguments(function["arguments"])


def is_json(text: str | bytes) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True


def merge_delta(message: dict[str, Any], delta: Mapping[str, Any]) -> bool:
    """Take a delta in; whether it brought a token."""
    progress = False
    for name, value in delta.items():
        if value is None or name == "role":
            continue
        if name in TEXTS and isinstance(value, str):
            pieces = message.get(name)
            if not isinstance(pieces, list):
                message[name] = pieces = []
            pieces.append(value)
        elif name == "tool_calls":
            for call in value:
                if isinstance(call, dict) and any(call.values()):
                    _merge_call(message.setdefault("tool_calls", []), call)
        elif name == "content":
            _add_content(message, value)
        else:
            message[name] = joined(message.get(name), value)
        progress = progress or bool(value)
    return progress


def _add_content(message: dict[str, Any], value: Any) -> None:
    """Content that is no text: parts, whose texts are texts, and what cannot be read stays as it is."""
    if not isinstance(message.get("content"), list):
        message["content"] = []
    texts: list[str] = message["content"]
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, dict):
            kept = message.setdefault(PARTS, [])
            last = kept[-1] if kept and kept[-1][0] == len(texts) else None
            if last is not None and last[1].get("type") == part.get("type"):
                last[1] = joined(last[1], part)
            else:
                kept.append([len(texts), part])
        else:
            texts.append(json.dumps(part, ensure_ascii=False))


def finish(message: dict[str, Any], seed: str) -> None:
    """Put the gathered pieces of a message together. `seed`: what tells this answer from others, for ids of its calls."""
    if isinstance(calls := message.get("tool_calls"), list):
        numbers = [call.pop("at", number) for number, call in enumerate(calls)]
        in_order = (
            sorted(range(len(calls)), key=numbers.__getitem__)
            if len(set(numbers)) == len(numbers)
            else range(len(calls))
        )
        ordered = [calls[at] for at in in_order]  # as they are numbered, or as they came where two have one number
        message["tool_calls"] = [call for call in ordered if call["id"] or any(call["function"].values())]
        for number, call in enumerate(message["tool_calls"]):
            arguments = repaired(call["function"]["arguments"])
            for stub in ("{}", "null"):  # some begin so, and then send the arguments
                if arguments.removeprefix(stub).startswith("{"):
                    arguments = arguments.removeprefix(stub)
            call["function"]["arguments"] = arguments
            call["id"] = call["id"] or new_id(seed, number, call["function"])
        if not message["tool_calls"]:
            del message["tool_calls"]
    with_text_arguments(message.get("function_call"))
    parts = message.pop(PARTS, None)
    for name in TEXTS:
        if isinstance(pieces := message.get(name), list) and all(isinstance(piece, str) for piece in pieces):
            message[name] = _content(pieces, parts) if parts and name == "content" else repaired("".join(pieces))


def new_id(seed: str, number: int, function: Mapping[str, Any]) -> str:
    """An id for a call that came without one: nobody could answer it, and no two calls of a conversation may share one."""
    told = f"{seed} {number} {function.get('name')} {function.get('arguments')}"
    return f"call_{sha256(told.encode('utf-8', 'replace')).hexdigest()[:20]}"


def _content(texts: list[str], parts: list[list[Any]]) -> list[Any]:
    """Texts and parts in the order in which they came."""
    content, begun = list[Any](), 0
    for before, part in [*parts, [len(texts), None]]:
        if text := repaired("".join(texts[begun:before])):
            content.append({"type": "text", "text": text})
        begun = before
        if part is not None:
            content.append(part)
    return content


def joined(before: Any, piece: Any, name: str = "") -> Any:
    """A field that is not known, with one more piece of it: texts and lists grow, entries with the same `index` are one,
    objects are joined field by field, and what is set once stays."""
    if before is None:
        return list(piece) if isinstance(piece, list) else dict(piece) if isinstance(piece, dict) else piece
    if piece is None:
        return before
    if isinstance(before, str) and isinstance(piece, str):
        return (piece or before) if name in _SET_ONCE else before + piece
    if isinstance(before, dict) and isinstance(piece, dict):
        return before | {key: joined(before.get(key), value, key) for key, value in piece.items()}
    if isinstance(before, list) and isinstance(piece, list):
        return _joined_lists(before, piece)
    return piece


def _joined_lists(before: list[Any], piece: list[Any]) -> list[Any]:
    places: dict[str, int] | None = None
    for entry in piece:
        at = None
        if isinstance(entry, dict) and entry.get("index") is not None:
            places = _places(before) if places is None else places
            at = places.get(str(entry["index"]))
        if at is None or not _are_one(before[at], entry):
            before.append(entry)
        else:
            before[at] = joined(before[at], entry)
    return before


def _places(entries: list[Any]) -> dict[str, int]:
    return {str(entry["index"]): at for at, entry in enumerate(entries) if isinstance(entry, dict) and "index" in entry}


def _are_one(entry: Any, piece: Any) -> bool:
    """Whether entries with the same index do not say that they are two."""
    return all(len({str(entry.get(name)), str(piece.get(name))} - {"None"}) < 2 for name in ("type", "id"))


def _merge_call(calls: list[dict[str, Any]], piece: Mapping[str, Any]) -> None:
    """A piece of a tool call: its name comes once, its arguments bit by bit."""
    function = piece.get("function") or {}
    at = None if piece.get("index") is None else int(piece["index"])
    arguments = as_arguments(function.get("arguments"))
    call = _call_of(calls, piece.get("id") or None, at, function.get("name"), arguments)
    if call is None:
        at = at if at is not None else max((each["at"] for each in calls), default=-1) + 1
        call = {"id": None, "type": "function", "function": {"name": "", "arguments": ""}, "at": at}
        calls.append(call)
    for name, value in piece.items():
        if name in ("id", "type"):
            call[name] = call[name] if name == "id" and call[name] else (value or call[name])
        elif name not in ("function", "index"):
            call[name] = joined(call.get(name), value)
    if called := function.get("name"):
        call["function"]["name"] = _grown(call["function"]["name"], called)
    before = call["function"]["arguments"]
    if arguments != before or not _is_whole(before):  # else the whole call came once more
        call["function"]["arguments"] = before + arguments


def _grown(name: str, piece: str) -> str:
    """A name that comes once, again with each piece, or bit by bit."""
    if name.startswith(piece):
        return name
    return piece if piece.startswith(name) else name + piece


def _call_of(
    calls: list[dict[str, Any]], call_id: str | None, at: int | None, name: str | None, arguments: str
) -> dict[str, Any] | None:
    """The call that a piece belongs to; None: it begins one. Some number every call 0, some give no number, some neither
    number nor id, some a new id with every piece."""
    there = [call for call in calls if at is None or call["at"] == at]
    if not there:
        return None
    last = there[-1]
    so_far, named = last["function"]["arguments"], last["function"]["name"]
    if call_id is not None:
        same = next((call for call in there if call["id"] == call_id), None)
        if same is not None or last["id"] is None:
            return same or last
        goes_on = at is not None and (not name or (name == named and bool(so_far))) and not _is_whole(so_far)
        return last if goes_on or not (name or arguments) else None
    if name and named and ((at is None and name != named) or (arguments and _is_whole(so_far))):
        return None
    return last


def _is_whole(arguments: str) -> bool:
    return arguments.endswith("}") and is_json(arguments)
