"""The text of an answer: as a person expects it, and while it comes (the pieces that a worker writes for a job with `live`)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

TEXT, BROKEN = "+", "!"


@dataclass
class LivePieces:
    """What was read of one job's pieces: of its first attempt alone, because no other one continues its text.

    `read`: how many entries of the list. `pieces`: their texts. `broken`: the attempt failed after its first piece.
    """

    read: int = 0
    pieces: list[str] = field(default_factory=list)
    broken: bool = False
    _attempt: str = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def add(self, entries: Sequence[bytes]) -> list[str]:
        """Take the next entries of the list in. Returns the texts that came."""
        before = len(self.pieces)
        for entry in entries:
            self.read += 1
            attempt, _, rest = entry.decode(errors="replace").partition(" ")
            piece = rest.partition(" ")[2]
            self._attempt = self._attempt or attempt
            if attempt != self._attempt or piece == BROKEN:
                self.broken = True
            if not self.broken:
                self.pieces.append(piece.removeprefix(TEXT))
        return self.pieces[before:]


_CLOSES_THINKING = re.compile(r"(?:^|\n)</think>[ \t]{0,20}\n")  # alone on its line: else it may be what is spoken of


def text_in(content: Any) -> str:
    """The text that a person expects of a message's content: without the thinking that some models write before it."""
    if isinstance(content, str):
        if "</think>" in content and "<think>" not in content and (closing := _CLOSES_THINKING.search(content)):
            return content[closing.end() :].lstrip()  # the template had opened it
        begins = content.lstrip().startswith("<think>")
        _, closed, rest = content.partition("</think>") if begins else ("", "", "")
        return rest.lstrip() if closed else content
    if isinstance(content, dict):
        inner = content.get("text") or content.get("parts") or content.get("content")
        return (
            inner
            if isinstance(inner, str)
            else text_of(inner) or (json.dumps(content, ensure_ascii=False) if content else "")
        )
    return text_of(content)


def text_of(parts: Any) -> str:
    """The text of content that comes as a list of parts; thinking is not the answer. Empty for what is no list."""
    found = parts if isinstance(parts, list) else []
    said = (
        part if isinstance(part, str) else part.get("text")
        for part in found
        if isinstance(part, str) or (isinstance(part, dict) and not is_thought(part.get("type")))
    )
    return "".join(text for text in said if isinstance(text, str))


def is_thought(kind: Any) -> bool:
    """Whether a part of this type is a model's thinking."""
    return isinstance(kind, str) and any(word in kind for word in ("think", "reason"))
