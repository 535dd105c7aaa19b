"""Builds a chat body from the text that a person gives."""

from __future__ import annotations

import json
from typing import Any

from producer.errors import UsageError


def body_of(given: str | bytes) -> Any:
    """The JSON object itself if it is a chat body, else a body with the text as one user message. Raises UsageError."""
    try:
        text = given if isinstance(given, str) else given.decode()
    except UnicodeDecodeError:
        raise UsageError("the prompt is not UTF-8 text") from None
    if not text.strip():
        raise UsageError("the prompt is empty")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict) and "messages" in data:
        return data
    if text.lstrip().startswith("{"):
        raise UsageError('the prompt begins with { but is not a chat body: give valid JSON with "messages"')
    return {"messages": [{"role": "user", "content": text}]}
