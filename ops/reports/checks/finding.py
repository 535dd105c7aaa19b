"""One result of a check, as the doctor reports it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from producer.errors import FailoverError

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """`about`: what was checked; `told`: the result in words; `exit_code`: of the command, if `level` is fail."""

    level: Level
    about: str
    told: str
    exit_code: int = 0


def wrong(about: str, error: FailoverError) -> Iterator[Finding]:
    """One finding for each line of an error."""
    for line in str(error).splitlines():
        yield Finding("fail", about, line, error.exit_code)
