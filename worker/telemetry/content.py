"""Prompts and answers in the form of OpenTelemetry's conventions, as JSON. Only where content is switched on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from producer.answer_text import text_of

LONGEST_TEXT = 16_000  # characters of one message


def input_messages(messages: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps([_message(each) for each in messages])


def output_messages(completion: Mapping[str, Any]) -> str:
    """One message for each choice of a chat completion."""
    return json.dumps(
        [
            {**_message(choice.get("message") or {}), "finish_reason": str(choice.get("finish_reason") or "error")}
            for choice in completion.get("choices") or ()
        ]
    )


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content, role = message.get("content"), str(message.get("role") or "assistant")
    text = content if isinstance(content, str) else text_of(content)
    parts: list[dict[str, Any]] = [{"type": "text", "content": text[:LONGEST_TEXT]}] if text else []
    if role == "tool":
        parts = [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": text[:LONGEST_TEXT]}]
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        arguments = str(function.get("arguments", ""))[:LONGEST_TEXT]
        parts.append({"type": "tool_call", "id": call.get("id"), "name": function.get("name"), "arguments": arguments})
    return {"role": role, "parts": parts}
