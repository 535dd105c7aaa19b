"""What a channel is: a way to tell people, and what it says of how that went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from worker.notify.incidents import Incident
from worker.notify.text import Message


@dataclass(frozen=True)
class Posted:
    """It is there. `ref`: by which it can be edited and answered to, where the channel has that."""

    ref: str = ""


@dataclass(frozen=True)
class Refused:
    """It is certainly not there, so it may be sent again, after `seconds` if the channel named them."""

    why: str
    seconds: float | None = None


@dataclass(frozen=True)
class Unknown:
    """It may be there: the connection broke before an answer came."""

    why: str


@dataclass(frozen=True)
class Post:
    """One thing to say. `part`: opening, closing, story, digest; with the incident's id it names the post. `thread` and
    `edit`: the opening's ref."""

    incident: Incident
    part: str
    message: Message
    thread: str = ""
    edit: str = ""
    broadcast: bool = False

    @property
    def name(self) -> str:
        return f"{self.incident.id}:{self.part}"


Outcome = Posted | Refused | Unknown


class Channel(Protocol):
    """`edits`: an opening can be edited and has a thread. `digest_factor`: how much rarer than usual it is to be told that
    something goes on. No method raises for what the other side does."""

    name: str
    edits: bool
    digest_factor: float

    def send(self, post: Post) -> Outcome: ...

    def find(self, post: Post, since_ms: int) -> Posted | Refused | None:
        """Whether an unknown post is there: Posted, Refused (it is not); None: nobody can tell now. Raises CannotLook."""
        ...


class CannotLook(Exception):
    """Nobody will ever be able to tell whether a post is there."""
