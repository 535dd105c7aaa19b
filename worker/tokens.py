"""How many tokens a body is about, before any provider has counted them.

No tokenizer of all providers exists offline: about 3.5 characters a token in Latin script, one a token in others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

LATIN_CHARACTERS_A_TOKEN = 3.5
_OTHER_SCRIPTS = re.compile("[^\u0000-\u024f]+")  # beyond the end of Latin Extended-B
_READ = ("messages", "tools", "response_format")


def estimated(body: Mapping[str, Any]) -> int:
    """Tokens of everything in the body that a provider reads: messages, tools, the form of the answer."""
    text = to_json({name: body[name] for name in _READ if body.get(name)}).decode()
    others = 0 if text.isascii() else sum(len(run) for run in _OTHER_SCRIPTS.findall(text))
    return round((len(text) - others) / LATIN_CHARACTERS_A_TOKEN) + others


def longest_answer(body: Mapping[str, Any]) -> int | None:
    """The limit of output tokens that the body itself names, if it does."""
    limits = [limit for name in ("max_completion_tokens", "max_tokens") if isinstance(limit := body.get(name), int)]
    return min((limit for limit in limits if limit > 0), default=None)
