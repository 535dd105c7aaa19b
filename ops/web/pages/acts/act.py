"""One act: the form that asks once, and what was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ops.web.pages.next_steps import Step
from ops.web.pages.page import Pages
from ops.web.sessions import Form, Visitor
from producer.errors import BadRequest
from worker.reports.backlog import Backlog


@dataclass(frozen=True)
class Field:
    """One field of the form. `options`: (value, text) of a select."""

    name: str
    label: str
    kind: Literal["text", "number", "long", "select", "check"] = "text"
    value: str = ""
    hint: str = ""
    required: bool = False
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Preview:
    """The form: what will happen, in jobs, dollars and minutes. `hidden`: what the form carries on. Without `button`, nothing
    can be done."""

    title: str
    lines: tuple[str, ...]
    button: str
    hidden: tuple[tuple[str, str], ...] = ()
    fields: tuple[Field, ...] = ()
    danger: bool = False
    text: str = ""  # of somebody else, to read first


@dataclass(frozen=True)
class Done:
    """What was done. `undo`: the act that takes it back. `text`: a message to the client, to copy."""

    title: str
    lines: tuple[str, ...] = ()
    undo: Step | None = None
    text: str = ""
    text_for: str = ""
    back: str = "/"


@dataclass(frozen=True)
class Act:
    """`preview` gets the query; `do` gets the form and who sent it. Both run in a thread and raise FailoverError."""

    preview: Callable[[Pages, Form], Preview]
    do: Callable[[Pages, Form, Visitor], Done]


LENGTHS = (
    ("", "until somebody ends it"),
    ("1800", "30 minutes"),
    ("7200", "2 hours"),
    ("28800", "8 hours"),
    ("86400", "1 day"),
)


def seconds_of(form: Form, lengths: tuple[tuple[str, str], ...] = LENGTHS) -> int | None:
    """The chosen length in seconds, None for no end. Raises BadRequest."""
    chosen = form.one("for")
    if chosen not in {value for value, _ in lengths}:
        raise BadRequest("choose one of the times in the list")
    return int(chosen) if chosen else None


def in_words(found: Backlog) -> tuple[str, ...]:
    """An estimate: jobs, dollars, minutes."""
    return tuple(line.strip() for line in str(found).splitlines())
