"""Answers of Anthropic's Messages, whole or streamed, as chat completions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from worker.providers.sse import StreamedAnswer, repaired

_FINISH = {  # what is not listed stays as it is: worker/errors/endings.py judges it
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "length",
}


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
    if finish == "content_filter":
        message["refusal"] = message["content"] or "the model refused to answer"
    return {
        "id": reply.get("id"),
        "object": "chat.completion",
        "model": reply.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage_of(reply.get("usage")),
    }


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
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
    fresh, read, written, out = (
        value if isinstance(value := usage.get(name), int) else 0
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    )
    if not isinstance(usage.get("output_tokens"), int) or not isinstance(usage.get("input_tokens"), int):
        return None  # what cannot be read is not free
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
    return counted | ({"service_tier": usage["service_tier"]} if isinstance(usage.get("service_tier"), str) else {})


class Assembly(StreamedAnswer):
    """A streamed Message, put together again."""

    finished = False  # its stop_reason has come

    def __init__(self) -> None:
        super().__init__()
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}
        self._signatures: dict[int, str] = {}
        self._thoughts: dict[int, list[str]] = {}

    @property
    def has_usage(self) -> bool:
        return self.finished  # it comes with the stop_reason

    @property
    def texts(self) -> Sequence[str]:
        blocks = (index for index in sorted(self._blocks) if self._blocks[index].get("type") == "text")
        return [piece for index in blocks for piece in self._pieces.get(index, ())]

    def completion(self) -> Any:
        return completion_of({**self._message, "content": [self._whole(index) for index in sorted(self._blocks)]})

    def _merge(self, event: dict[str, Any]) -> bool:
        match event["type"]:
            case "error":
                self.error = event
            case "message_start":
                self._message = dict(event["message"])
            case "content_block_start":
                self._blocks[event["index"]] = dict(event["content_block"])
                return bool(event["content_block"].get("type") == "tool_use")
            case "content_block_delta":
                delta = event["delta"]
                piece = str(delta.get("text") or delta.get("partial_json") or "")
                self._pieces.setdefault(event["index"], []).append(piece)
                self._thoughts.setdefault(event["index"], []).append(str(delta.get("thinking") or ""))
                if delta.get("signature"):
                    self._signatures[event["index"]] = str(delta["signature"])
                return bool(piece or delta.get("thinking"))
            case "message_delta":
                self._message |= {name: value for name, value in event["delta"].items() if value is not None}
                told = {name: count for name, count in (event.get("usage") or {}).items() if count is not None}
                self._message["usage"] = {**(self._message.get("usage") or {}), **told}
                self.finished = self._message.get("stop_reason") is not None
                return self.finished
        return False

    def _whole(self, index: int) -> dict[str, Any]:
        block, text = self._blocks[index], repaired("".join(self._pieces.get(index, ())))
        if block.get("type") == "tool_use":
            return {**block, "input": arguments(text) if text else block.get("input")}
        if block.get("type") == "thinking":
            thoughts = repaired("".join(self._thoughts.get(index, ())))
            signature = self._signatures.get(index) or block.get("signature")
            return {**block, "thinking": thoughts or block.get("thinking"), "signature": signature}
        return {**block, "text": text or block.get("text")} if block.get("type") == "text" else block
