"""Reads along with a stream: the text that has come since the last look, without keys and without halves of characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker.providers.sse import repaired

SHORTEST_SECRET = 12  # characters; `test`, `EMPTY`, `ollama` are keys too, and words of many answers
CUT = "[key]"


class LiveReader:
    """Of one attempt. `send` gets each new text; None: nobody reads along."""

    def __init__(self, send: Callable[[str], None] | None, secrets: Sequence[str]) -> None:
        self._send, self._secrets = send, [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]
        self._taken = 0
        self._half = ""

    def follow(self, pieces: Sequence[str]) -> None:
        """`pieces`: all pieces of the answer's text so far."""
        if self._send is None:
            return
        text = self._half + "".join(pieces[self._taken :])
        self._taken, self._half = len(pieces), ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        text = repaired(text)
        for secret in self._secrets:
            text = text.replace(secret, CUT)
        if text:
            self._send(text)
