"""The interface of a channel: how a message is sent, and the possible outcomes."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Protocol

from worker.notify.incident_text import Message
from worker.notify.incidents import Incident


@dataclass(frozen=True)
class Posted:
    """It arrived. `ref`: the channel's reference for edits and replies; "" if the channel has none."""

    ref: str = ""


@dataclass(frozen=True)
class Refused:
    """It certainly did not arrive, so it may be sent again, after `seconds` if the channel named a time. `hopeless`:
    the channel will never accept this message, but may accept others. `theirs`: the other side fails; no setting is wrong."""

    why: str
    seconds: float | None = None
    hopeless: bool = False
    theirs: bool = False


@dataclass(frozen=True)
class Unknown:
    """It may have arrived: the connection broke before the answer."""

    why: str


@dataclass(frozen=True)
class Unfindable:
    """Nobody can ever find out whether it arrived."""

    why: str


@dataclass(frozen=True)
class Post:
    """One message to send. `part`: opening, closing, story-N, digest-N or edit; with the incident's id it identifies
    the post. `thread`: ref of the post to reply to; `edit`: ref of the post to change; `broadcast`: show a reply in the
    channel too."""

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


GAP_SECONDS = 1.1  # Slack accepts one message a second for each channel
BACKOFF_SECONDS = (1.0, 60.0)


@dataclass
class Pace:
    """When a channel may be called again. `not_before`: seconds of the caller's clock."""

    not_before: float = 0.0
    _backoff: float = BACKOFF_SECONDS[0]

    def note(self, outcome: Outcome, now: float) -> None:
        """A call has ended: wait a little after one that the channel accepted or never will, longer after each other one."""
        if isinstance(outcome, Posted) or (isinstance(outcome, Refused) and outcome.hopeless):
            self._backoff, self.not_before = BACKOFF_SECONDS[0], now + GAP_SECONDS
            return
        named = outcome.seconds if isinstance(outcome, Refused) else None
        self.not_before = now + max(GAP_SECONDS, self._backoff if named is None else named)
        self._backoff = min(self._backoff * 2, BACKOFF_SECONDS[1])


class Channel(Protocol):
    """A way to send messages. `edits`: an opening can be edited and has a thread. `digest_factor`: digests come so many
    times less often than `digest_minutes` says. No method raises an error for a failure of the other side."""

    name: str
    edits: bool
    digest_factor: float

    def send(self, post: Post) -> Outcome: ...

    def find(self, post: Post, since_ms: int) -> Found:
        """Whether a post without an answer arrived: Posted, Refused (it did not), Unknown (ask again later), Unfindable.

        `since_ms`: Unix time when it was sent.
        """
        ...


def failure(answer: int | str) -> str:
    """The words for an HTTP status from 500 on, or another answer by which a service says that it fails itself."""
    return f"it answered {answer}, a failure on its own side"


def trouble(error: Exception) -> str:
    """The problem of a connection, in words. It never contains the URL, which may be a secret."""
    if isinstance(error, socket.gaierror):
        return "its host name cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return "its certificate is not trusted, or this port has no TLS"
    return type(error).__name__
