"""What each channel is told of each incident, once.

What was told stands in the incident's hash, one field for each channel and part: `sending` before a post leaves, `sent` with
its ref after it, `unknown` when the connection broke in between. An unknown post is looked for, and sent again only if it is
certainly not there; where nobody can look it stays `ambiguous` and is never sent again: the next digest says it all.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from worker.notify import text
from worker.notify.channel import CannotLook, Channel, Outcome, Post, Posted, Refused
from worker.notify.incidents import Incident, Incidents
from worker.notify.kinds import LORE
from worker.notify.oncall import OnCall

log = logging.getLogger("failover.worker")

GAP_SECONDS = 1.1  # Slack takes a message a second for each channel
BACKOFF_SECONDS = (1.0, 60.0)
LOOK_AFTER_MS = 3000  # a post that broke off has arrived by then, if it ever does
ORPHANED_MS = 30_000  # a post of another worker that has not been heard of since
SENDING, SENT, UNKNOWN, AMBIGUOUS = "sending", "sent", "unknown", "ambiguous"

Paste = Callable[[Incident], tuple[tuple[str, str], ...]]


@dataclass
class Told:
    """What one channel was told of one incident."""

    state: str  # of the part that is looked at
    ref: str
    at_ms: int

    @classmethod
    def of(cls, incident: Incident, channel: str, part: str) -> Told:
        state, at, ref = (incident.fields.get(f"{channel}:{part}", "") + "  ").split(" ")[:3]
        return cls(state, ref, int(at or 0))

    @property
    def over(self) -> bool:
        return self.state in (SENT, AMBIGUOUS)


@dataclass
class Sender:
    """Tells one channel. `paste`: the client messages that go with an incident."""

    channel: Channel
    incidents: Incidents
    on_call: OnCall
    paste: Paste = lambda incident: ()
    clock: Callable[[], float] = time.monotonic
    _not_before: float = field(default=0.0, init=False)
    _backoff: float = field(default=BACKOFF_SECONDS[0], init=False)

    def step(self, unsettled: Sequence[Incident], now_ms: int) -> bool:
        """Say the most urgent thing that is due, if it is time; whether anything was sent."""
        if self.clock() < self._not_before:
            return False
        due = sorted(self._due(unsettled, now_ms), key=lambda entry: entry[0])
        return any(self._say(incident, post, before, now_ms) for _, incident, post, before in due)

    def all_told(self, incident: Incident) -> bool:
        """Whether nothing is left to say of a resolved incident."""
        return not any(True for _ in self._parts(incident, incident.resolved_ms or 0))

    def _told(self, incident: Incident, part: str) -> Told:
        return Told.of(incident, self.channel.name, part)

    def _due(self, unsettled: Sequence[Incident], now_ms: int) -> Iterator[tuple[int, Incident, Post, str]]:
        """(rank, incident, post, what its field holds now)."""
        for incident in unsettled:
            for rank, part in self._parts(incident, now_ms):
                before = incident.fields.get(f"{self.channel.name}:{part}", "")
                yield rank, incident, self._post(incident, part, now_ms), before
                break  # one thing at a time of each

    def _parts(self, incident: Incident, now_ms: int) -> Iterator[tuple[int, str]]:
        opening, closing = self._told(incident, "opening"), self._told(incident, "closing")
        if not opening.state and incident.resolved_ms is not None and not LORE[incident.kind].notice:
            if not closing.over:
                yield 0, "closing"  # it came and went while the channel was away
            return
        if not opening.over:
            yield 0, "opening"
            return
        if LORE[incident.kind].notice:
            return
        threaded = bool(self.channel.edits and opening.state == SENT and opening.ref)
        if threaded:
            yield from self._in_thread(incident, now_ms)
        if incident.resolved_ms is None:
            yield from self._again(incident, opening, now_ms, edited=threaded)
        elif not closing.over:
            yield 1, "closing"

    def _in_thread(self, incident: Incident, now_ms: int) -> Iterator[tuple[int, str]]:
        told = int(incident.fields.get(f"{self.channel.name}:stories", 0))
        last, next_one = self._told(incident, f"story-{told}"), self._told(incident, f"story-{told + 1}")
        if next_one.state and not next_one.over:
            yield 2, f"story-{told + 1}"
            return
        over = incident.resolved_ms is not None  # then nothing more comes that would be worth waiting for
        if (over or now_ms - last.at_ms >= self.on_call.thread_seconds * 1000) and self._new_story(incident):
            yield 2, f"story-{told + 1}"
        if over and not self._told(incident, "closing").over:
            return
        shown, at = (incident.fields.get(f"{self.channel.name}:shown", "") + "  ").split(" ")[:2]
        if shown != self._shown(incident, now_ms) and (
            over or now_ms - int(at or 0) >= self.on_call.edit_seconds * 1000
        ):
            yield 3, "edit"

    def _again(self, incident: Incident, opening: Told, now_ms: int, *, edited: bool) -> Iterator[tuple[int, str]]:
        """A digest where a message cannot be edited and its counts grew; else a reminder, each later than the last."""
        number = int(incident.fields.get(f"{self.channel.name}:digests", 0))
        last = self._told(incident, f"digest-{number}") if number else opening
        if self._told(incident, f"digest-{number + 1}").state:  # it broke off
            yield 2, f"digest-{number + 1}"
            return
        waited = (now_ms - last.at_ms) / 60_000
        grew = incident.fields.get(f"{self.channel.name}:grew", "") != _size(incident)
        digest = not edited and grew and waited >= self.on_call.digest_minutes * self.channel.digest_factor
        if digest or waited >= self.on_call.reminder_minutes * 2 ** min(number, 6):
            yield 2, f"digest-{number + 1}"

    def _post(self, incident: Incident, part: str, now_ms: int) -> Post:
        opening = self._told(incident, "opening")
        ref = opening.ref if self.channel.edits else ""
        kind = part.partition("-")[0]
        if kind == "edit":
            return Post(incident, part, text.of_incident(incident, self.on_call, now_ms), edit=ref)
        if kind == "story":
            entries = self.incidents.story(incident.id, self._entries_told(incident))
            first = part == "story-1"
            return Post(
                incident, part, text.of_story(incident, entries, self.paste(incident) if first else ()), thread=ref
            )
        if kind == "closing":
            message = text.of_closing(incident, self.on_call, now_ms)
        elif kind == "digest":
            message = text.of_reminder(incident, self.on_call, now_ms)
        else:
            message = text.of_incident(incident, self.on_call, now_ms)
        return Post(incident, part, message, thread="" if kind == "opening" else ref, broadcast=kind != "opening")

    def _say(self, incident: Incident, post: Post, before: str, now_ms: int) -> bool:
        told = self._told(incident, post.part)
        if post.edit:
            shown = f"{self._shown(incident, now_ms)} {now_ms}"
            if self._heard(self.channel.send(post)) is not None:
                self.incidents.change(incident, f"{self.channel.name}:shown", shown)
            return True
        if told.state in (SENDING, UNKNOWN):
            return self._look(incident, post, told, before, now_ms)
        if not self._mark(incident, post, before, f"{SENDING} {now_ms}"):
            return False  # another worker is at it
        self._settle(incident, post, f"{SENDING} {now_ms}", self.channel.send(post), now_ms)
        return True

    def _look(self, incident: Incident, post: Post, told: Told, before: str, now_ms: int) -> bool:
        """After a post of which nobody knows whether it arrived."""
        if now_ms - told.at_ms < (LOOK_AFTER_MS if told.state == UNKNOWN else ORPHANED_MS):
            return False
        try:
            found = self.channel.find(post, told.at_ms)
        except CannotLook as error:
            log.warning("a notification may have arrived, it is not sent again", extra=self._facts(post, str(error)))
            self._mark(incident, post, before, f"{AMBIGUOUS} {told.at_ms}", self._also(incident, post, now_ms))
            return True
        if found is None:
            self._wait(None)
        elif isinstance(found, Posted):
            self._settle(incident, post, before, found, told.at_ms)
        else:
            self._mark(incident, post, before, "")
        return True

    def _settle(self, incident: Incident, post: Post, mark: str, outcome: Outcome, now_ms: int) -> None:
        self._heard(outcome)
        if isinstance(outcome, Posted):
            self._mark(incident, post, mark, f"{SENT} {now_ms} {outcome.ref}", self._also(incident, post, now_ms))
        elif isinstance(outcome, Refused):
            log.warning("a notification was refused", extra=self._facts(post, outcome.why))
            self._mark(incident, post, mark, "")
        else:
            log.warning("a notification broke off", extra=self._facts(post, outcome.why))
            self._mark(incident, post, mark, f"{UNKNOWN} {now_ms}")

    def _mark(
        self, incident: Incident, post: Post, before: str, value: str, more: dict[str, str] | None = None
    ) -> bool:
        field_name = f"{self.channel.name}:{post.part}"
        known = replace(incident, fields={**incident.fields, field_name: before})
        return self.incidents.change(known, field_name, value, more=more)

    def _also(self, incident: Incident, post: Post, now_ms: int) -> dict[str, str]:
        """What else is known to the channel once the post is there."""
        name = self.channel.name
        kind, _, number = post.part.partition("-")
        also = {f"{name}:grew": _size(incident)}
        if kind == "opening":
            return also | {f"{name}:shown": f"{self._shown(incident, now_ms)} {now_ms}"}
        if kind == "story":
            told = self._entries_told(incident) + len(self.incidents.story(incident.id, self._entries_told(incident)))
            return {f"{name}:stories": number, f"{name}:entries": str(told)}
        if kind == "digest":
            also[f"{name}:digests"] = number
        return also

    def _entries_told(self, incident: Incident) -> int:
        return int(incident.fields.get(f"{self.channel.name}:entries", 0))

    def _new_story(self, incident: Incident) -> bool:
        return bool(self.incidents.story(incident.id, self._entries_told(incident)))

    def _shown(self, incident: Incident, now_ms: int) -> str:
        message = text.of_incident(incident, self.on_call, now_ms)
        return hashlib.sha256(message.plain().encode()).hexdigest()[:16]

    def _heard(self, outcome: Outcome) -> Posted | None:
        """Pace, and how long to wait after trouble."""
        if isinstance(outcome, Posted):
            self._backoff, self._not_before = BACKOFF_SECONDS[0], self.clock() + GAP_SECONDS
            return outcome
        self._wait(outcome.seconds if isinstance(outcome, Refused) else None)
        return None

    def _wait(self, named: float | None) -> None:
        self._not_before = self.clock() + max(GAP_SECONDS, self._backoff if named is None else named)
        self._backoff = min(self._backoff * 2, BACKOFF_SECONDS[1])

    def _facts(self, post: Post, why: str) -> dict[str, str]:
        return {"channel": self.channel.name, "incident": post.incident.id, "part": post.part, "why": why}


def _size(incident: Incident) -> str:
    """What a digest is worth sending for."""
    return f"{incident.dead} {incident.degraded} {len(incident.tenants)} {len(incident.marks)}"
