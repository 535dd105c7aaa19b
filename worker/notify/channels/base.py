"""What a channel is: a way to tell people, and what it says of how that went."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Protocol

from worker.notify.incident_text import Message
from worker.notify.incidents import Incident


@dataclass(frozen=True)
class Posted:
    """It is there. `ref`: by which it can be edited and answered to, where the channel has that."""

    ref: str = ""


@dataclass(frozen=True)
class Refused:
    """It is certainly not there, so it may be sent again, after `seconds` if the channel named them. `hopeless`: this very
    message will never be taken, though others may."""

    why: str
    seconds: float | None = None
    hopeless: bool = False


@dataclass(frozen=True)
class Unknown:
    """It may be there: the connection broke before an answer came."""

    why: str


@dataclass(frozen=True)
class Unfindable:
    """Nobody will ever be able to tell whether it is there."""

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
        return f"{self.incident.id}:{self.part}:{self.incident.opened_ms}"


Outcome = Posted | Refused | Unknown
Found = Posted | Refused | Unknown | Unfindable


class Channel(Protocol):
    """`edits`: an opening can be edited and has a thread. `digest_factor`: how much rarer than usual it is to be told that
    something goes on. No method raises for what the other side does."""

    name: str
    edits: bool
    digest_factor: float

    def send(self, post: Post) -> Outcome: ...

    def find(self, post: Post, since_ms: int) -> Found:
        """Whether a post of which nothing was heard is there: Posted, Refused (it is not), Unknown (ask again later)."""
        ...


def trouble(error: Exception) -> str:
    """What is wrong with a connection, for people; never the URL."""
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return "its certificate is not trusted, or it speaks no TLS there"
    return type(error).__name__
