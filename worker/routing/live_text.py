"""The text of an answer while it comes, for who reads along over HTTP: pieces in Redis, each once and in order.

It is a copy for readers and decides nothing: the job's result is the whole answer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from producer import keyspace
from producer.answer_text import BROKEN, TEXT
from producer.scripts import Call, Script
from worker.queue.batcher import Request

LIVE = Script.load(Path(__file__).parent / "lua", "live")
KEEP_SECONDS = 900  # for readers that come back
LONGEST_PIECE = 256 * 1024  # characters: a longer one is sent in parts


class LiveText:
    """The pieces of one execution. Each attempt begins anew, as its answer has nothing to do with the one before."""

    def __init__(self, job_id: str, execution: str, submit: Callable[[Request], None]) -> None:
        self._job_id, self._execution, self._submit = job_id, execution, submit
        self._attempts = self._pieces = 0

    def begin(self) -> None:
        """An attempt begins."""
        self._attempts, self._pieces = self._attempts + 1, 0

    def send(self, text: str) -> None:
        """More text of the attempt's answer."""
        for begin in range(0, len(text), LONGEST_PIECE):
            self._push(TEXT + text[begin : begin + LONGEST_PIECE])

    def broke(self) -> None:
        """The attempt failed: what readers have of it is no part of an answer."""
        if self._pieces:
            self._push(BROKEN)

    def _push(self, piece: str) -> None:
        self._pieces += 1
        call = self._call(f"{self._execution}.{self._attempts}", self._pieces, piece)
        self._submit(Request(lambda: call, _ignored, until_answered=True))

    def _call(self, attempt: str, number: int, piece: str) -> Call:
        args = (attempt, number, piece, KEEP_SECONDS, keyspace.job_channel(self._job_id))
        return LIVE.call([keyspace.live(self._job_id)], args)


def _ignored(_reply: object) -> None:
    """A piece that cannot be written is missed by its readers only: they see that the answer goes on elsewhere."""
