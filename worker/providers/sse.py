"""A streamed chat completion, put together again: server-sent events in, one completion with its usage out.

What counts as progress is a token: text, a piece of a tool call, a finish. Comments, blank lines and role-only chunks keep a
connection alive and prove nothing, so they extend no limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

DONE = b"[DONE]"
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")


class Events:
    """The `data` of server-sent events, from chunks that may end anywhere (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                yield data


class Assembly:
    """One completion in the making. `wanted`: the number of choices that the body asked for."""

    def __init__(self, wanted: int = 1) -> None:
        self._wanted = wanted
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self.skipped = 0  # events that could not be read
        self.error: dict[str, Any] | None = None  # an event that was one: the stream is worth nothing
        self.began = False  # the first token has come

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish_reason: what comes after it is bookkeeping."""
        ended = [choice for choice in self._choices.values() if choice["finish_reason"] is not None]
        return len(ended) >= self._wanted and len(ended) == len(self._choices)

    def add(self, data: bytes) -> bool:
        """Take one event in; whether it brought a token."""
        try:
            return self._merge(event_of(data))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            self.skipped += 1
            return False

    def completion(self) -> dict[str, Any]:
        """The chat completion, as it would have come in one piece."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            message = choice["message"]
            if "tool_calls" in message:
                calls = message["tool_calls"]
                message["tool_calls"] = [calls[index] for index in sorted(calls)]
                for call in message["tool_calls"]:
                    call["function"]["arguments"] = repaired(call["function"]["arguments"])
            for name, pieces in message.items():
                if name in _TEXTS and isinstance(pieces, list):
                    message[name] = repaired("".join(pieces))
        return {**self._head, "object": "chat.completion", "choices": choices}

    def _merge(self, event: dict[str, Any]) -> bool:
        if event.get("error"):
            self.error = event
            return False
        for name, value in event.items():
            if name == "choices" or value is None:
                continue
            if name == "usage" or name not in self._head:
                self._head[name] = value
        progress = False
        for piece in event.get("choices") or ():
            progress = self._merge_choice(piece) or progress
        self.began = self.began or progress
        return progress

    def _merge_choice(self, piece: dict[str, Any]) -> bool:
        index = piece.get("index") or 0
        choice = self._choices.get(index)
        if choice is None:
            message: dict[str, Any] = {"role": "assistant", "content": None}
            choice = self._choices[index] = {"index": index, "message": message, "finish_reason": None}
        progress = _merge_delta(choice["message"], piece.get("delta") or {})
        if logprobs := piece.get("logprobs"):
            kept = choice.setdefault("logprobs", {})
            for name, entries in logprobs.items():
                if isinstance(entries, list):
                    kept.setdefault(name, []).extend(entries)
        if reason := piece.get("finish_reason"):
            choice["finish_reason"] = reason
            progress = True
        return progress


def event_of(data: bytes) -> Any:
    """One event's JSON. Halves of a character, as some gateways send them, are read too: the next event has the other half."""
    try:
        return from_json(data)
    except ValueError:
        return json.loads(data)


def repaired(text: str) -> str:
    """The text with its halves of characters put together, and those that are alone replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _merge_delta(message: dict[str, Any], delta: dict[str, Any]) -> bool:
    progress = False
    for name, value in delta.items():
        if value is None or name == "role":
            continue
        if name == "tool_calls":
            for call in value:
                _merge_call(message.setdefault("tool_calls", {}), call)
            progress = progress or bool(value)
        elif name in _TEXTS:
            if message.get(name) is None:
                message[name] = []
            message[name].append(value if isinstance(value, str) else _text_of(value))
            progress = progress or bool(value)
        else:
            message[name] = value
    return progress


def _merge_call(calls: dict[int, dict[str, Any]], piece: dict[str, Any]) -> None:
    """A piece of a tool call: its name comes once, its arguments bit by bit."""
    index = piece.get("index") or 0
    if call_id := piece.get("id"):  # some number every call 0: a new id is a new call
        taken = index in calls and calls[index]["id"] is not None
        index = next((i for i, call in calls.items() if call["id"] == call_id), max(calls) + 1 if taken else index)
    elif index in calls and "index" not in piece:
        index = max(calls)
    call = calls.setdefault(index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
    for name in ("id", "type"):
        if piece.get(name):
            call[name] = piece[name]
    function = piece.get("function") or {}
    if function.get("name"):
        call["function"]["name"] = function["name"]
    call["function"]["arguments"] += function.get("arguments") or ""


def _text_of(parts: Any) -> str:
    """The text of content that comes as a list of parts; thinking is not the answer."""
    found = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(part["text"] for part in found if isinstance(part.get("text"), str))
