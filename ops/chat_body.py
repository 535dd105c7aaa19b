"""A chat body from what a person types."""

from __future__ import annotations

import json
from typing import Any

from producer.errors import UsageError


def body_of(given: str | bytes) -> Any:
    """A chat body: the JSON object itself, or one user message of the text."""
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
        raise UsageError('that begins like a chat body and is none: it wants valid JSON with "messages"')
    return {"messages": [{"role": "user", "content": text}]}
