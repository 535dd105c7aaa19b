"""How many tokens a body is about, before any provider has counted them.

No tokenizer of all providers exists offline: about 3.5 characters a token in Latin script, one a token in others.
"""

from __future__ import annotations

import json

from producer.job import ChatBody

LATIN_CHARACTERS_A_TOKEN = 3.5
_LATIN_END = 0x250  # the end of Latin Extended-B


def estimated(body: ChatBody) -> int:
    """Tokens of everything in the body that a provider reads: messages, tools, the form of the answer."""
    read = {name: body[name] for name in ("messages", "tools", "response_format") if body.get(name)}
    text = json.dumps(read, ensure_ascii=False)
    latin = sum(ord(character) < _LATIN_END for character in text)
    return round(latin / LATIN_CHARACTERS_A_TOKEN) + len(text) - latin
