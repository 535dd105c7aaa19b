"""Estimates the tokens of a body before a provider has counted them.

There is no offline tokenizer for all providers, so the estimate counts characters: about 3.5 per token in Latin script, one
per token in other scripts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

LATIN_CHARACTERS_A_TOKEN = 3.5
MOST_TOKENS = 10**9  # larger numbers count as this one
TOKENS_OF_MEDIA = 1600  # about what providers count for an image of usual size
_OTHER_SCRIPTS = re.compile("[^\u0000-\u024f]+")  # beyond the end of Latin Extended-B
_READ = ("messages", "tools", "response_format")


def estimated(body: Mapping[str, Any]) -> int:
    """The estimated prompt tokens: of messages, tools and response format."""
    media = 0
    read = {name: body[name] for name in _READ if body.get(name)}
    if any(isinstance(message.get("content"), list) for message in read.get("messages") or ()):
        read["messages"], media = _without_media(read["messages"])
    text = to_json(read).decode()
    others = 0 if text.isascii() else sum(len(run) for run in _OTHER_SCRIPTS.findall(text))
    return round((len(text) - others) / LATIN_CHARACTERS_A_TOKEN) + others + media * TOKENS_OF_MEDIA


def _without_media(messages: Sequence[Any]) -> tuple[list[Any], int]:
    """(the messages without media parts, the number of media parts). Providers do not count the base64 text of media."""
    kept, count = [], 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            texts = [
                part for part in content if not isinstance(part, dict) or part.get("type") in (None, "text", "refusal")
            ]
            count += len(content) - len(texts)
            message = {**message, "content": texts}
        kept.append(message)
    return kept, count


def longest_answer(body: Mapping[str, Any]) -> int | None:
    """The limit of output tokens in the body; None if it names none."""
    limits = [limit for name in ("max_completion_tokens", "max_tokens") if isinstance(limit := body.get(name), int)]
    return min((min(limit, MOST_TOKENS) for limit in limits if limit > 0), default=None)
