"""What an import took over, what it only approximated, and what it left out: three short sections for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

Lines = dict[str, list[str]]  # what is said -> of whom

_TITLES = {"taken": "Taken", "approximated": "Approximated", "left_out": "Left out"}


@dataclass
class Report:
    """Each line names its subjects: an entry with its alias, a setting. The same words of several stand in one line."""

    taken: Lines = field(default_factory=dict)
    approximated: Lines = field(default_factory=dict)
    left_out: Lines = field(default_factory=dict)

    def took(self, subject: str, text: str) -> None:
        _add(self.taken, subject, text)

    def approximate(self, subject: str, text: str) -> None:
        _add(self.approximated, subject, text)

    def leave_out(self, subject: str, text: str) -> None:
        _add(self.left_out, subject, text)

    def sections(self) -> dict[str, list[str]]:
        """The lines by section."""
        return {name: [_line(text, who) for text, who in getattr(self, name).items()] for name in _TITLES}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for name, lines in self.sections().items():
            if lines:
                yield f"{_TITLES[name]}:"
                yield from (f"  {line}" for line in lines)


def _add(lines: Lines, subject: str, text: str) -> None:
    subjects = lines.setdefault(text, [])
    if subject not in subjects:
        subjects.append(subject)


def _line(text: str, subjects: list[str]) -> str:
    return f"{', '.join(subjects)}: {text}"
