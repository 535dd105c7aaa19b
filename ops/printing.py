"""What the commands print, without control characters: they come with texts of clients and providers, and could retitle the
terminal, hide lines or type into it.

`guard_output` covers all that is written to stdout and stderr. Only our own console writes styles, past it, so the console
cleans its texts itself (console.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO, cast

from worker.humanize import printable


class PrintableStream:
    """A text stream that writes control characters as their escapes, such as \\u001b, also into a pipe: JSON stays valid."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # rich writes its styles to this one

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def guard_output() -> None:
    """From here on, whatever this process prints is printable. A closed output takes everything, and keeps nothing."""
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it ends with the process
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it ends with the process
    sys.stdout = cast(TextIO, PrintableStream(sys.stdout))
    sys.stderr = cast(TextIO, PrintableStream(sys.stderr))
