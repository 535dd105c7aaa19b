"""Reads along with a stream: the text that has come since the last look, without keys and without halves of characters.

What may be the beginning of either is held back until more has come. The end of the answer needs no more: readers get what is
left of it from the job's result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker.providers.message_pieces import repaired

SHORTEST_SECRET = 12  # characters; `test`, `EMPTY`, `ollama` are keys too, and words of many answers
CUT = "[key]"


class LiveReader:
    """Of one attempt. `send` gets each new text; None: nobody reads along."""

    def __init__(self, send: Callable[[str], None] | None, secrets: Sequence[str]) -> None:
        self._send, self._secrets = send, [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]
        self._taken = 0
        self._held = ""

    def follow(self, pieces: Sequence[str]) -> None:
        """`pieces`: all pieces of the answer's text so far."""
        if self._send is None:
            return
        text = self._held + "".join(pieces[self._taken :])
        self._taken = len(pieces)
        for secret in self._secrets:
            text = text.replace(secret, CUT)
        ready = len(text) - self._unfinished(text)
        text, self._held = text[:ready], text[ready:]
        if text:
            self._send(repaired(text))

    def _unfinished(self, text: str) -> int:
        """How many of the last characters are the beginning of a key, or half of a character."""
        if text and "\ud800" <= text[-1] <= "\udbff":
            return 1
        begun = (_begun(text, secret) for secret in self._secrets)
        return max(begun, default=0)


def _begun(text: str, secret: str) -> int:
    """The length of the longest end of `text` with which `secret` begins."""
    longest = min(len(text), len(secret) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(secret[:size])), 0)
