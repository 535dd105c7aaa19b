"""The text of an answer while it comes: the pieces that a worker writes for a job with `live`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
