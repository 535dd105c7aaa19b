"""Redis refuses every write, because it cannot write to its own disk (MISCONF). Then no incident can be recorded either.

The notifier that held the lease when this began keeps the incident in its memory, and sends it straight to the channels: once
while it lasts, and once when it is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from worker.notify import incident_text
from worker.notify.channels.base import Channel, Post, Posted, Refused
from worker.notify.incidents import Incident
from worker.notify.kinds import Kind
from worker.notify.oncall import OnCall

log = logging.getLogger("failover.worker")

ID = "unwritten"  # it has no number, because numbers are in Redis


class UnwritableRedis:
    """The incident of a Redis that refuses every write. `lasts`: one is open."""

    def __init__(self, channels: Sequence[Channel], on_call: OnCall) -> None:
        self._channels, self._on_call = channels, on_call
        self._incident: Incident | None = None
        self._refs: dict[str, str] = {}  # of the opening, by the channels that have it

    @property
    def lasts(self) -> bool:
        return self._incident is not None

    def look(self, refusal: str) -> None:
        """`refusal`: the error of a write just now, "" if it was accepted. Blocks while the channels are called."""
        now = round(time.time() * 1000)
        if refusal and self._incident is None:
            marks = {"writes are refused": "writes are accepted"}
            self._incident = Incident(ID, Kind.REDIS_UNWRITABLE, "", "", now, None, now, lines=(refusal,), marks=marks)
        if (incident := self._incident) is None:
            return
        if not refusal:
            over = replace(incident, resolved_ms=now)
            message = incident_text.of_closing(over, self._on_call, now)
            for channel in [each for each in self._channels if each.name in self._refs]:
                _send(channel, Post(over, "closing", message, thread=self._refs[channel.name], broadcast=True))
            self._incident, self._refs = None, {}
        elif now - incident.opened_ms >= self._on_call.hold_seconds * 1000:
            message = incident_text.of_incident(incident, self._on_call, now)
            for channel in [each for each in self._channels if each.name not in self._refs]:
                if (ref := _send(channel, Post(incident, "opening", message))) is not None:
                    self._refs[channel.name] = ref


def _send(channel: Channel, post: Post) -> str | None:
    """The channel's reference, "" if it has none; None if it certainly did not arrive, and may be sent again."""
    try:
        outcome = channel.send(post)
    except Exception:
        log.exception("a channel failed in our own code", extra={"channel": channel.name})
        return ""
    if isinstance(outcome, Posted):
        return outcome.ref
    log.warning(
        "a notification was not accepted", extra={"channel": channel.name, "part": post.part, "why": outcome.why}
    )
    return None if isinstance(outcome, Refused) and not outcome.hopeless else ""
