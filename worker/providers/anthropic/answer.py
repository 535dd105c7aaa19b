"""Answers of Anthropic's Messages, whole or streamed, as chat completions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from worker.errors.error_body import is_error
from worker.providers.assembly import StreamedAnswer, counted
from worker.providers.message_pieces import as_arguments, repaired
from worker.routes.usage import count

_FINISH = {  # what is not listed stays as it is: worker/errors/endings.py judges it
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "length",
}


BLOCKS = "anthropic_blocks"  # of a message: all blocks as they came, for people and for the next request
_KNOWN = frozenset({"text", "tool_use", "thinking", "redacted_thinking"})
_UNREAD = "unread_input"


def arguments(text: Any) -> Any:
    """A tool call's arguments, which the other side writes as JSON text."""
    try:
        read = from_json(text or "{}")
    except (ValueError, TypeError):
        return {"arguments": text}
    return read if isinstance(read, dict) else {"arguments": read}


def completion_of(reply: Any) -> Any:
    """The chat completion that a Message is; what is none comes back as it is."""
    if not isinstance(reply, dict) or reply.get("type") != "message" or not isinstance(reply.get("content"), list):
        return reply
    blocks = [block for block in reply["content"] if isinstance(block, dict)]
    texts = [block["text"] for block in blocks if block.get("type") == "text" and isinstance(block.get("text"), str)]
    reason = reply.get("stop_reason")
    finish = _FINISH.get(str(reason), reason)
    nothing = "" if finish == "length" else None  # cut while it was thinking: an answer, if a short one
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else nothing}
    if calls := [_call(block) for block in blocks if block.get("type") == "tool_use"]:
        message["tool_calls"] = calls
    message |= _thinking(blocks)
    if _says_more(blocks):
        message[BLOCKS] = blocks
    if finish == "content_filter":
        why = reply.get("stop_details")
        said = why.get("explanation") if isinstance(why, dict) else None
        message["refusal"] = said or message["content"] or "the model refused to answer"
    return {
        "id": reply.get("id"),
        "object": "chat.completion",
        "model": reply.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage_of(reply.get("usage")),
    }


def _says_more(blocks: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a chat completion cannot say it all: blocks of other kinds, citations, thinking between calls and texts."""
    kinds = [str(block.get("type")) for block in blocks]
    thoughts = [at for at, kind in enumerate(kinds) if "thinking" in kind]
    between = bool(thoughts) and thoughts != list(range(len(thoughts)))
    return between or not _KNOWN.issuperset(kinds) or any(block.get("citations") for block in blocks)


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    unread = block.get(_UNREAD)  # arguments that are no JSON: cut, or the model's mistake
    arguments = unread if unread is not None else json.dumps(block.get("input") or {}, ensure_ascii=False)
    function = {"name": block.get("name"), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _thinking(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Thinking in the fields that other gateways use: with its signatures, for the next request, and as text for people."""
    kept = [dict(block) for block in blocks if block.get("type") in ("thinking", "redacted_thinking")]
    text = "".join(str(block.get("thinking") or "") for block in kept)
    return ({"thinking_blocks": kept} if kept else {}) | ({"reasoning_content": text} if text else {})


def usage_of(usage: Any) -> dict[str, Any] | None:
    """Tokens as chat completions count them: a prompt's cached parts are parts of it."""
    if not isinstance(usage, dict):
        return None
    named = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    counts = [count(usage, name) for name in named]
    if counts[0] is None or counts[3] is None:
        return None  # what cannot be read is not free
    fresh, read, written, out = (number or 0 for number in counts)
    prompt = fresh + read + written
    details = {"cached_tokens": read, "cache_write_tokens": written}
    by_length = usage.get("cache_creation")
    if isinstance(by_length, dict) and isinstance(hour := by_length.get("ephemeral_1h_input_tokens"), int):
        details["cache_write_1h_tokens"] = hour
    counted: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": out,
        "total_tokens": prompt + out,
        "prompt_tokens_details": details,
    }
    if isinstance(tools := usage.get("server_tool_use"), dict):
        counted["server_tool_use"] = tools
    return counted | ({"service_tier": usage["service_tier"]} if isinstance(usage.get("service_tier"), str) else {})


class Assembly(StreamedAnswer):
    """A streamed Message, put together again."""

    finished = False  # its stop_reason has come

    def __init__(self) -> None:
        super().__init__()
        self._message: dict[str, Any] = {}
        self._blocks: list[_Block] = []
        self._open: dict[int, _Block] = {}  # by index; some gateways use one again for the next block

    @property
    def has_usage(self) -> bool:
        return self.finished  # it comes with the stop_reason

    @property
    def texts(self) -> Sequence[str]:
        return [piece for block in self._blocks if block.kind == "text" for piece in block.texts]

    def completion(self) -> Any:
        return completion_of({**self._message, "content": [block.whole() for block in self._blocks]})

    def _merge(self, event: Any) -> bool:
        if (event.get("type") not in _EVENTS or "error" in event) and is_error(event):
            self._told(event)
            return False
        match event["type"]:
            case "message_start":
                self._message = dict(event["message"])
                usage = dict(self._message.get("usage") or {})
                usage.pop("output_tokens", None)  # a first guess: what is billed comes at the end
                self._message["usage"] = usage
            case "content_block_start":
                block = self._begin(int(event["index"]), dict(event["content_block"]))
                return block.kind == "tool_use" or any(block.texts)
            case "content_block_delta":
                index, delta = int(event["index"]), event["delta"]
                block = self._open.get(index) or self._begin(
                    index, {"type": _OPENS.get(str(delta.get("type")), "text")}
                )
                return block.add(delta)
            case "message_delta" | "message_stop":
                self._message |= {
                    name: value for name, value in (event.get("delta") or {}).items() if value is not None
                }
                self._count(event.get("usage") or {})
                self.finished = self._message.get("stop_reason") is not None
                return self.finished
        return False

    def _begin(self, index: int, fields: dict[str, Any]) -> _Block:
        self._open[index] = block = _Block(fields)
        self._blocks.append(block)
        return block

    def _count(self, told: Mapping[str, Any]) -> None:
        """A zero replaces nothing that was counted, unless the prompt is said to come from the cache."""
        usage = self._message.setdefault("usage", {})
        cached = any(isinstance(n := told.get(name), int) and n > 0 for name in _CACHE_COUNTS)
        for name, number in told.items():
            if isinstance(number, dict):
                usage[name] = counted(usage.get(name) or {}, number)
            elif number is not None and (number or not usage.get(name) or (name == "input_tokens" and cached)):
                usage[name] = number


_EVENTS = frozenset(  # of the API's own that are no errors
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
    }
)
_OPENS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
    "input_json_delta": "tool_use",
}
_CACHE_COUNTS = ("cache_read_input_tokens", "cache_creation_input_tokens")


class _Block:
    """One block in the making: what its start says, and the pieces after it, each kind by itself."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields, self.kind = fields, str(fields.get("type"))
        self.texts = [str(fields.get("text") or "")]
        self._thoughts = [str(fields.get("thinking") or "")]
        self._json: list[str] = []
        self._signature = str(fields.get("signature") or "")

    def add(self, delta: Mapping[str, Any]) -> bool:
        """Whether it brought a token."""
        text, thought, piece = delta.get("text"), delta.get("thinking"), delta.get("partial_json")
        if text:
            self.texts.append(str(text))
        if thought:
            self._thoughts.append(str(thought))
        if piece:
            self._json.append(as_arguments(piece))
        if citation := delta.get("citation"):
            self.fields["citations"] = [*(self.fields.get("citations") or ()), citation]
        self._signature += str(delta.get("signature") or "")
        return bool(text or thought or piece)

    def whole(self) -> dict[str, Any]:
        match self.kind:
            case "tool_use" | "server_tool_use" if self._json:
                text = repaired("".join(self._json))
                read = arguments(text)
                return {**self.fields, "input": read, **({} if is_object(text) else {_UNREAD: text})}
            case "thinking":
                thoughts = repaired("".join(self._thoughts))
                return {**self.fields, "thinking": thoughts, "signature": self._signature or None}
            case "text":
                return {**self.fields, "text": repaired("".join(self.texts))}
        return self.fields


def is_object(text: str) -> bool:
    """Whether a tool call's arguments are what they should be."""
    try:
        return isinstance(from_json(text), dict)
    except ValueError:
        return False
