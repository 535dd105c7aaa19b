"""What a replay is made of: the arrivals of a trace, and an incident of the past."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from producer.errors import UsageError
from producer.policy import read_yaml

FILE = Path(__file__).parent / "incidents.yaml"
COLUMNS = {  # by what it is, how traces name it, without case, blanks and underscores
    "at": ("timestamp", "time", "arrivaltime", "arrivaltimestamp"),
    "prompt": ("contexttokens", "prompttokens", "inputtokens", "numprefilltokens", "requesttokens"),
    "answer": ("generatedtokens", "completiontokens", "outputtokens", "numdecodetokens", "responsetokens"),
}
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Arrival:
    """A request: seconds since the first one, tokens of its prompt and of its answer."""

    at: float
    prompt_tokens: int
    answer_tokens: int


class Window(BaseModel):
    """A part of an incident; times of its day in UTC. `failures`: the share of calls that fail, `timeouts`: the share of those
    that only fail when the route's time is over; `latency` multiplies the time of the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str
    begins: Annotated[str, Field(pattern=r"^\d\d:\d\d$")]
    ends: Annotated[str, Field(pattern=r"^\d\d:\d\d$")]
    failures: Share
    timeouts: Share = 0.0
    latency: Annotated[float, Field(ge=1)] = 1.0

    @property
    def seconds(self) -> tuple[float, float]:
        """(begin, end) in seconds of the day."""
        first, last = ((int(text[:2]) * 60 + int(text[3:])) * 60.0 for text in (self.begins, self.ends))
        return first, last


class Incident(BaseModel):
    """An outage of one day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    windows: Annotated[tuple[Window, ...], Field(min_length=1)]


class Incidents(BaseModel):
    """The file incidents.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    incidents: dict[str, Incident]


def load_incident(name: str, path: Path = FILE) -> Incident:
    """The incident of a day. Raises UsageError, ConfigurationError."""
    known = read_yaml(path, Incidents).incidents
    if name not in known:
        raise UsageError(f"there is no incident {name}; known incidents: {', '.join(known)}")
    return known[name]


def load_trace(path: Path) -> list[Arrival]:
    """The arrivals of a CSV file (also .gz), in order. Its columns: a time (ISO 8601, or seconds), tokens of the prompt and of
    the answer. Raises UsageError that names the line."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    rows = csv.reader(io.StringIO(text))
    where = _columns(path, next(rows, []))
    found = list(_arrivals(path, rows, where))
    if len(found) < 2:
        raise UsageError(f"{path} has no two requests: a trace needs a first and a last one")
    found.sort()
    first = found[0][0]
    return [Arrival(at - first, prompt, answer) for at, prompt, answer in found]


def _columns(path: Path, head: list[str]) -> tuple[int, int, int]:
    names = ["".join(c for c in name.lower() if c.isalnum()) for name in head]
    found = [next((names.index(name) for name in known if name in names), -1) for known in COLUMNS.values()]
    if -1 in found:
        example = "TIMESTAMP,ContextTokens,GeneratedTokens"
        raise UsageError(f"{path}: line 1 has no columns for time, prompt and answer tokens: name them as in {example}")
    return found[0], found[1], found[2]


def _arrivals(path: Path, rows: Iterator[list[str]], where: tuple[int, int, int]) -> Iterator[tuple[float, int, int]]:
    for number, row in enumerate(rows, 2):
        if not any(row):
            continue
        try:
            at, prompt, answer = (row[column] for column in where)
            yield _seconds(at), max(0, int(float(prompt))), max(0, int(float(answer)))
        except (IndexError, ValueError):
            raise UsageError(f"{path}: line {number} is not a time and two numbers") from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        head, dot, digits = text.strip().partition(".")
        return datetime.fromisoformat(head + (dot + digits[:6].ljust(6, "0") if dot else "")).timestamp()
