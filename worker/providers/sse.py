"""A streamed chat completion, put together again: server-sent events in, one completion with its usage out.

What counts as progress is a token: text, a piece of a tool call, a finish. Comments, blank lines and role-only chunks keep
a connection alive and prove nothing, so they extend no limit. What is not known is kept: a piece that nobody here knows may
be the answer.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic_core import from_json

from producer.job import text_of

DONE = b"[DONE]"
BOM = b"\xef\xbb\xbf"
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_SET_ONCE = frozenset({"role", "id", "type", "name", "model", "index", "format", "expires_at", "status", "signature"})


class Events:
    """The `data` of server-sent events, from chunks that may end anywhere (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._began = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        text = self._rest + chunk
        if not self._began and len(text) >= len(BOM):
            text, self._began = text.removeprefix(BOM), True
        *lines, self._rest = text.split(b"\n")
        for line in lines:
            yield from self._line(line)

    def end(self) -> Iterator[bytes]:
        """The last event, where the stream ends without the blank line after it."""
        yield from self._line(self._rest.removeprefix(BOM))
        yield from self._line(b"")
        self._rest = b""

    def _line(self, line: bytes) -> Iterator[bytes]:
        line = line.rstrip(b"\r")
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line and self._data:
            data, self._data = b"\n".join(self._data), []
            yield data


def looks_like_events(raw: bytes) -> bool:
    """Whether a body is server-sent events, whatever its content type says."""
    head = raw[:200].removeprefix(BOM).lstrip()
    return head.startswith((b"data:", b"event:", b": ", b"id:", b"retry:")) and b"data:" in raw[:4096]


class StreamedAnswer(ABC):
    """A streamed answer in the making, of any dialect."""

    def __init__(self) -> None:
        self.skipped = 0  # events that could not be read
        self.error: dict[str, Any] | None = None  # an event that was one: the stream is worth nothing
        self.began = False  # the first token has come
        self.began_at = 0.0  # when it came, on the monotonic clock
        self.done = False  # [DONE] has: nothing was cut off

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether it has ended as the dialect says: what comes after it is bookkeeping."""

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.finished

    @property
    @abstractmethod
    def has_usage(self) -> bool: ...

    @property
    def over(self) -> bool:
        """Whether no later event matters."""
        return self.done or self.error is not None

    def add(self, data: bytes) -> bool:
        """Take one event in; whether it brought a token."""
        if data.strip() == DONE:
            self.done = True
            return False
        try:
            progress = self._merge(event_of(data))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            self.skipped += 1
            return False
        if progress and not self.began:
            self.began, self.began_at = True, time.monotonic()
        return progress

    @property
    @abstractmethod
    def texts(self) -> Sequence[str]:
        """The pieces of the answer's text so far, of the first choice."""

    @abstractmethod
    def _merge(self, event: dict[str, Any]) -> bool:
        """Take one event's JSON in; whether it brought a token. What cannot be read raises."""

    @abstractmethod
    def completion(self) -> Any:
        """The chat completion, as it would have come in one piece."""


class Assembly(StreamedAnswer):
    """One completion in the making. `wanted`: the number of choices that the body asked for."""

    def __init__(self, wanted: int = 1) -> None:
        super().__init__()
        self._wanted = wanted
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish_reason: what comes after it is bookkeeping."""
        ended = [choice for choice in self._choices.values() if choice["finish_reason"] is not None]
        return len(ended) >= self._wanted and len(ended) == len(self._choices)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing: it is finished, or ended with [DONE] after it had begun."""
        return self.finished or (self.done and self.began)

    @property
    def has_usage(self) -> bool:
        return isinstance(self._head.get("usage"), dict)

    @property
    def texts(self) -> Sequence[str]:
        content = self._choices[0]["message"].get("content") if 0 in self._choices else None
        return content if isinstance(content, list) else ()

    def completion(self) -> dict[str, Any]:
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            _finish(choice["message"])
        return {**self._head, "object": "chat.completion", "choices": choices}

    def _merge(self, event: dict[str, Any]) -> bool:
        if event.get("error") or (event.get("object") == "error" or event.get("type") == "error"):
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
        return progress

    def _merge_choice(self, piece: dict[str, Any]) -> bool:
        index = piece.get("index") or 0
        choice = self._choices.get(index)
        if choice is None:
            message: dict[str, Any] = {"role": "assistant", "content": None}
            choice = self._choices[index] = {"index": index, "message": message, "finish_reason": None}
        progress = _merge_delta(choice["message"], piece.get("delta") or piece.get("message") or {})
        if isinstance(logprobs := piece.get("logprobs"), dict):
            kept = choice.setdefault("logprobs", {})
            for name, entries in logprobs.items():
                if isinstance(entries, list):
                    kept.setdefault(name, []).extend(entries)
        if reason := piece.get("finish_reason"):
            choice["finish_reason"] = reason
            progress = True
        return progress


def event_of(data: bytes) -> Any:
    """One event's JSON. Halves of a character, as some gateways send them, are read too: the next event has the other half.
    A byte that is no UTF-8 becomes a replacement character, so that no piece of the answer is missing without a trace."""
    try:
        return from_json(data)
    except ValueError:
        return json.loads(data.decode("utf-8", "replace"))


def repaired(text: str) -> str:
    """The text with its halves of characters put together, and those that are alone replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def as_arguments(arguments: Any) -> str:
    """A tool call's arguments as JSON text, which some send as an object."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _finish(message: dict[str, Any]) -> None:
    """Put the gathered pieces of a message together."""
    if isinstance(calls := message.get("tool_calls"), dict):
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
        for number, call in enumerate(message["tool_calls"]):
            call["function"]["arguments"] = repaired(call["function"]["arguments"])
            call["id"] = call["id"] or f"call_{number}"  # without one nobody could answer the call
    for name, pieces in message.items():
        if name in _TEXTS and isinstance(pieces, list):
            message[name] = repaired("".join(pieces))


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
            message[name].append(value if isinstance(value, str) else text_of(value))
            progress = progress or bool(value)
        else:
            message[name] = joined(message.get(name), value)
            progress = progress or bool(value)
    return progress


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
    places = {entry["index"]: at for at, entry in enumerate(before) if isinstance(entry, dict) and "index" in entry}
    grown = list(before)
    for entry in piece:
        at = places.get(entry.get("index")) if isinstance(entry, dict) and entry.get("index") is not None else None
        if at is None:
            grown.append(entry)
        else:
            grown[at] = joined(grown[at], entry)
    return grown


def _merge_call(calls: dict[int, dict[str, Any]], piece: dict[str, Any]) -> None:
    """A piece of a tool call: its name comes once, its arguments bit by bit."""
    index = _place_of(calls, piece)
    call = calls.setdefault(index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
    for name, value in piece.items():
        if name in ("id", "type"):
            call[name] = value or call[name]
        elif name not in ("function", "index"):
            call[name] = joined(call.get(name), value)
    function = piece.get("function") or {}
    if function.get("name"):
        call["function"]["name"] = function["name"]
    if (arguments := function.get("arguments")) is not None:
        call["function"]["arguments"] += as_arguments(arguments) if arguments else ""


def _place_of(calls: dict[int, dict[str, Any]], piece: dict[str, Any]) -> int:
    """Which call a piece belongs to. Some number every call 0, some give no number, some neither number nor id: a new id is
    a new call, and so is a name where the last call has its own and its whole arguments."""
    index = piece.get("index") or 0
    if call_id := piece.get("id"):
        taken = index in calls and calls[index]["id"] is not None
        return next((i for i, call in calls.items() if call["id"] == call_id), max(calls) + 1 if taken else index)
    if calls and piece.get("index") is None:
        last = max(calls)
        named = bool((piece.get("function") or {}).get("name")) and bool(calls[last]["function"]["name"])
        return last + 1 if named else last
    return int(index)
