"""A streamed chat completion, put together again: events in, one completion with its usage out.

What counts as progress is a token: text, a piece of a tool call, a finish. Comments, blank lines and role-only chunks keep
a connection alive and prove nothing, so they extend no limit. What is not known is kept: a piece that nobody here knows may
be the answer.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from worker.errors.endings import Ending, ending_of
from worker.errors.error_body import has_facts, is_error
from worker.providers.message_pieces import finish, is_json, merge_delta
from worker.providers.sse import DONE, events_of

LONGEST_UNREAD = 200  # characters of an event that could not be read, for the trail
_OF_A_CHUNK = frozenset({"index", "delta", "finish_reason", "logprobs"})
_OF_A_CHOICE = frozenset({"index", "delta", "message", "text", "finish_reason", "logprobs", "usage", "error"})


class StreamedAnswer(ABC):
    """A streamed answer in the making, of any dialect."""

    def __init__(self) -> None:
        self.skipped = 0  # events that could not be read
        self.unread = ""  # the beginning of the last one of them
        self.error: dict[str, Any] | None = None  # an event that was one: the stream is worth nothing
        self.doubt: dict[str, Any] | None = None  # one that may have been an error: it was, if the answer is not whole
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
        progress = False
        try:
            events = events_of(data)
            progress = self._merge(events[0])
            for event in events[1:]:
                progress = self._merge(event) or progress
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            self.skipped += 1
            self.unread = data[:LONGEST_UNREAD].decode("utf-8", "replace")
        if progress and not self.began:
            self.began, self.began_at = True, time.monotonic()
        return progress

    def _told(self, event: dict[str, Any]) -> None:
        """An error came, or what may be one."""
        if is_error(event, surely=True):
            self.error = event
        else:
            self.doubt = event

    @property
    @abstractmethod
    def texts(self) -> Sequence[str]:
        """The pieces of the answer's text so far, of the first choice."""

    @abstractmethod
    def _merge(self, event: Any) -> bool:
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
        self._known = {"choices", "usage"}  # fields of an event that are noted, or read elsewhere
        self._by_delta: set[int] = set()
        self._full: dict[int, dict[str, Any]] = {}  # messages that came whole beside their deltas

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish_reason: what comes after it is bookkeeping."""
        ended = [choice for choice in self._choices.values() if choice["finish_reason"] is not None]
        return len(ended) >= self._wanted and len(ended) == len(self._choices)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing: it is finished, or it ended with [DONE], had begun, and every event could be read."""
        return self.finished or (
            self.done and self.began and not self.skipped and self.doubt is None and self._calls_are_whole()
        )

    def _calls_are_whole(self) -> bool:
        calls = (call for choice in self._choices.values() for call in choice["message"].get("tool_calls") or ())
        return all(is_json(call["function"]["arguments"] or "{}") for call in calls)

    @property
    def has_usage(self) -> bool:
        return isinstance(self._head.get("usage"), dict)

    @property
    def texts(self) -> Sequence[str]:
        content = self._choices[0]["message"].get("content") if 0 in self._choices else None
        return content if isinstance(content, list) else ()

    def completion(self) -> dict[str, Any]:
        for index, choice in self._choices.items():
            said = (
                any(value) if isinstance(value, list) else value
                for name, value in choice["message"].items()
                if name != "role"
            )
            if index in self._full and not any(said):
                merge_delta(choice["message"], self._full[index])
            finish(choice["message"], f"{self._head.get('id')} {self._head.get('created')} {index}")
        choices = [self._choices[index] for index in sorted(self._choices)]
        return {**self._head, "object": "chat.completion", "choices": choices}

    def _merge(self, event: Any) -> bool:
        if isinstance(event, list):
            return any(list(map(self._merge, event)))  # all of them
        choices = event.get("choices")
        if (not choices or "error" in event or "base_resp" in event) and is_error(event):
            self._told(event)
            return False
        if isinstance(of_groq := event.get("x_groq"), dict) and self._of_groq(of_groq):
            return False
        for name in event:
            value = event[name]
            if name in self._known or value is None:
                continue
            self._head[name] = value
            if value and name != "service_tier":  # the one that served it comes last; some begin with empty fields
                self._known.add(name)
        if "usage" in event:
            self._count(event["usage"])
        progress = False
        for place, piece in enumerate(choices or ()):
            progress = self._merge_choice(piece, place) or progress
        return progress

    def _of_groq(self, told: Mapping[str, Any]) -> bool:
        """Whether Groq says in a field of its own that the stream broke; its usage may stand there too."""
        if told.get("error"):
            self.error = {"error": told["error"]}
            return True
        self._count(told.get("usage"))
        return False

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._head["usage"] = counted(self._head.get("usage") or {}, usage)

    def _merge_choice(self, piece: dict[str, Any], place: int) -> bool:
        if "error" in piece and has_facts(piece["error"]):
            self.error = {"error": piece["error"]}
            return False
        index = int(place if (index := piece.get("index")) is None else index)
        choice = self._choices.get(index)
        if choice is None:
            message: dict[str, Any] = {"role": "assistant", "content": None}
            choice = self._choices[index] = {"index": index, "message": message, "finish_reason": None}
        new = self._new_in(index, piece)
        progress = merge_delta(choice["message"], new) or index in self._full
        if not _OF_A_CHUNK.issuperset(piece) or piece.get("logprobs"):
            self._merge_more(choice, piece)
        reason = piece.get("finish_reason")
        if reason is None and choice["finish_reason"] is None:
            return progress
        return self._end(choice, reason, new) or progress

    def _merge_more(self, choice: dict[str, Any], piece: Mapping[str, Any]) -> None:
        """What only some chunks bring: probabilities, usage, and fields that nobody here knows."""
        self._count(piece.get("usage"))
        if isinstance(logprobs := piece.get("logprobs"), dict):
            kept = choice.setdefault("logprobs", {})
            for name, entries in logprobs.items():
                if isinstance(entries, list):
                    kept.setdefault(name, []).extend(entries)
        for name, value in piece.items():
            if name not in _OF_A_CHOICE and value is not None:
                before = choice.get(name)
                choice[name] = before | value if isinstance(before, dict) and isinstance(value, dict) else value

    def _new_in(self, index: int, piece: dict[str, Any]) -> Mapping[str, Any]:
        """What a chunk adds to its choice. A whole message beside deltas, or after them, is the same once more."""
        delta, full = piece.get("delta"), piece.get("message")
        if isinstance(full, dict) and full and not (delta and any(delta[name] for name in delta if name != "role")):
            if delta is None and index not in self._by_delta:
                return full
            self._full[index] = full
        elif delta is None and isinstance(piece.get("text"), str):
            return {"content": piece["text"]}
        elif delta:
            self._by_delta.add(index)
        return delta or {}

    @staticmethod
    def _end(choice: dict[str, Any], reason: Any, new: Mapping[str, Any]) -> bool:
        """Note a finish_reason: of two the worse one, and none where text or a call comes after it."""
        before = choice["finish_reason"]
        if not reason or reason == "null":
            if ending_of(before) is Ending.GOOD and (new.get("content") or new.get("tool_calls")):
                choice["finish_reason"] = None
            return False
        if before is None or ending_of(reason).value >= ending_of(before).value:
            choice["finish_reason"] = reason
        return True


def counted(before: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
    """A usage with one more report of it. Reports grow, some bring one number each, and some end with zeros."""
    told = dict(before)
    for name, value in usage.items():
        known = told.get(name)
        if isinstance(value, dict):
            told[name] = counted(known if isinstance(known, dict) else {}, value)
        elif isinstance(known, int | float) and isinstance(value, int | float):
            told[name] = max(known, value)
        elif value is not None or name not in told:
            told[name] = value
    return told
