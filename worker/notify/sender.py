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
from itertools import islice

from worker.notify import incident_text
from worker.notify.channels.base import Channel, Outcome, Post, Posted, Refused, Unfindable, Unknown
from worker.notify.delivery_state import AMBIGUOUS, REFUSED, SENDING, SENT, UNKNOWN, DeliveryState
from worker.notify.incidents import Incident, Incidents, number
from worker.notify.kinds import KIND_INFO
from worker.notify.oncall import OnCall

log = logging.getLogger("failover.worker")

GAP_SECONDS = 1.1  # Slack takes a message a second for each channel
BACKOFF_SECONDS = (1.0, 60.0)
LOOK_AGAIN_SECONDS = 30.0
LOOK_AFTER_MS = 3000  # a post that broke off has arrived by then, if it ever does
NOT_THERE_MS = 20_000  # a slow channel may take a post after its sender gave up
ORPHANED_MS = 30_000  # a post of another worker that has not been heard of since
UNKNOWN_MS = 3_600_000  # after which nobody looks any more

Paste = Callable[[Incident, str, str], str]  # (incident, client message, tenant) -> the text, "" if it cannot be filled


@dataclass
class Sender:
    """Tells one channel. `paste` fills the client messages that go with an incident: each goes out once, with its thread where
    there is one, else with whatever is said next."""

    channel: Channel
    incidents: Incidents
    on_call: OnCall
    paste: Paste = lambda incident, message, tenant: ""
    clock: Callable[[], float] = time.monotonic
    _not_before: float = field(default=0.0, init=False)
    _backoff: float = field(default=BACKOFF_SECONDS[0], init=False)
    _look_at: dict[str, float] = field(default_factory=dict, init=False)
    _trouble: str | None = field(default=None, init=False)  # as it is noted; None: not known

    def step(self, unsettled: Sequence[Incident], now_ms: int) -> bool:
        """Say the most urgent thing that is due, if it is time; whether anything was sent."""
        if self.clock() < self._not_before:
            return False
        found = ((part, incident) for incident in unsettled for part in islice(self._parts(incident, now_ms), 1))
        due = sorted(found, key=lambda entry: entry[0][0])
        return any(self._say(incident, part, now_ms) for (_, part), incident in due)

    def all_told(self, incident: Incident) -> bool:
        """Whether nothing is left to say of a resolved incident."""
        return not any(True for _ in self._parts(incident, incident.resolved_ms or 0))

    def _told(self, incident: Incident, part: str) -> DeliveryState:
        return DeliveryState.of(incident, self.channel.name, part)

    def _parts(self, incident: Incident, now_ms: int) -> Iterator[tuple[int, str]]:
        """What is due of an incident, the first thing first, each with its rank among those of other incidents."""
        opening, closing = self._told(incident, "opening"), self._told(incident, "closing")
        if not opening.state and incident.resolved_ms is not None and not KIND_INFO[incident.kind].notice:
            if not closing.over:
                yield 0, "closing"  # it came and went while the channel was away
            return
        if not opening.over:
            yield 0, "opening"
            return
        if KIND_INFO[incident.kind].notice:
            return
        threaded = bool(self._thread(incident))
        if threaded:
            yield from self._in_thread(incident, now_ms)
        if incident.resolved_ms is None:
            yield from self._again(incident, opening, now_ms, edited=threaded)
        elif not closing.over:
            yield 1, "closing"

    def _in_thread(self, incident: Incident, now_ms: int) -> Iterator[tuple[int, str]]:
        told = self._number(incident, "stories")
        last, next_one = self._told(incident, f"story-{told}"), self._told(incident, f"story-{told + 1}")
        if next_one.open:
            yield 2, f"story-{told + 1}"
            return
        over = incident.resolved_ms is not None  # then nothing more comes that would be worth waiting for
        paced = over or now_ms - last.at_ms >= self.on_call.thread_seconds * 1000
        if paced and (
            self._unpasted(incident) or self.incidents.lines(incident.id) > self._number(incident, "entries")
        ):
            yield 2, f"story-{told + 1}"
        if over and not self._told(incident, "closing").over:
            return
        shown = self._told(incident, "shown")  # a digest in the place of a state
        aged = over or now_ms - shown.at_ms >= self.on_call.edit_seconds * 1000
        if aged and shown.state != self._shown(incident, now_ms):
            yield 3, "edit"

    def _again(
        self, incident: Incident, opening: DeliveryState, now_ms: int, *, edited: bool
    ) -> Iterator[tuple[int, str]]:
        """A digest where a message cannot be edited and its counts grew; else a reminder of what lasts."""
        told = self._number(incident, "digests")
        last, following = self._told(incident, f"digest-{told}") if told else opening, f"digest-{told + 1}"
        if self._told(incident, following).open:
            yield 2, following
            return
        waited = (now_ms - last.at_ms) / 60_000
        grew = incident.fields.get(f"{self.channel.name}:grew", "") != _size(incident)
        digest = not edited and grew and waited >= self.on_call.digest_minutes * self.channel.digest_factor
        lasts = self.on_call.reminder_minutes + (last.at_ms - opening.at_ms) / 60_000  # each after twice as long
        if digest or (waited >= lasts and not incident.fades):
            yield 2, following

    def _post(self, incident: Incident, part: str, told: DeliveryState, now_ms: int) -> Post:
        thread, kind = self._thread(incident), part.partition("-")[0]
        message = self._message(incident, part, told, now_ms)
        if kind == "edit":
            return Post(incident, part, message, edit=thread)
        if self._carries(incident, part):
            message = message.with_paste(self._pasted(incident, self._unpasted(incident)))
        return Post(incident, part, message, thread=thread, broadcast=kind in ("closing", "digest"))

    def _thread(self, incident: Incident) -> str:
        """The ref of the opening, by which it can be edited and answered to; "" where that cannot be."""
        opening = self._told(incident, "opening")
        return opening.detail if self.channel.edits and opening.state == SENT else ""

    def _carries(self, incident: Incident, part: str) -> bool:
        """Whether client messages go along: with the story, and where there is no thread with whatever is said."""
        if part == "opening":
            return not self.channel.edits
        return part.startswith("story") or not self._thread(incident)

    def _message(self, incident: Incident, part: str, told: DeliveryState, now_ms: int) -> incident_text.Message:
        kind = part.partition("-")[0]
        if kind == "story":
            begin, end = self._number(incident, "entries"), number(told.detail)
            return incident_text.of_story(incident, self.incidents.story(incident.id, begin)[: max(0, end - begin)])
        forms = {"closing": incident_text.of_closing, "digest": incident_text.of_reminder}
        return forms.get(kind, incident_text.of_incident)(incident, self.on_call, now_ms)

    def _say(self, incident: Incident, part: str, now_ms: int) -> bool:
        """Whether the channel was asked for anything."""
        before = self._told(incident, part)
        if part == "edit":
            return self._edit(incident, now_ms)
        if before.open:
            return self._look(incident, part, before, now_ms)
        leaves = DeliveryState(
            SENDING, now_ms, str(self.incidents.lines(incident.id)) if part.startswith("story") else ""
        )
        if not self._mark(incident, part, before, leaves):
            return False  # another worker is at it
        self._settle(incident, part, leaves, self._sent(self._post(incident, part, leaves, now_ms)), now_ms)
        return True

    def _sent(self, post: Post) -> Outcome:
        try:
            return self.channel.send(post)
        except Exception as error:
            log.exception("a channel failed in our own code", extra={"channel": self.channel.name})
            return Unknown(type(error).__name__)

    def _edit(self, incident: Incident, now_ms: int) -> bool:
        shown = f"{self._shown(incident, now_ms)} {now_ms}"
        outcome = self._sent(self._post(incident, "edit", DeliveryState("", 0, ""), now_ms))
        self._heard(outcome, now_ms)
        if isinstance(outcome, Posted):
            self.incidents.change(incident, f"{self.channel.name}:shown", shown)
        elif isinstance(outcome, Refused) and outcome.hopeless:  # somebody deleted it: what follows is told by itself
            opening = self._told(incident, "opening")
            self._mark(incident, "opening", opening, replace(opening, state=REFUSED))
        return True

    def _look(self, incident: Incident, part: str, before: DeliveryState, now_ms: int) -> bool:
        """After a post of which nobody knows whether it arrived."""
        waited = now_ms - before.at_ms
        if waited < (LOOK_AFTER_MS if before.state == UNKNOWN else ORPHANED_MS):
            return False
        if self.clock() < self._look_at.get(f"{incident.id}:{part}", 0.0):
            return False
        found = self.channel.find(self._post(incident, part, before, now_ms), before.at_ms)
        if isinstance(found, Unknown) and waited > UNKNOWN_MS:
            found = Unfindable(found.why)
        match found:
            case Posted(ref):
                also = self._also(incident, part, before, fresh=False)
                self._mark(incident, part, before, replace(before, state=SENT, detail=ref), also)
            case Refused() if waited >= NOT_THERE_MS:
                self._mark(incident, part, before, DeliveryState("", 0, ""))
            case Refused():
                self._look_at[f"{incident.id}:{part}"] = self.clock() + LOOK_AFTER_MS / 1000
            case Unknown():
                self._look_at[f"{incident.id}:{part}"] = self.clock() + LOOK_AGAIN_SECONDS
            case Unfindable(why):
                facts = self._facts(incident, part, why)
                log.warning("a notification may have arrived, it is not sent again", extra=facts)
                also = self._also(incident, part, before, fresh=False)
                self._mark(incident, part, before, replace(before, state=AMBIGUOUS), also)
        return True

    def _settle(self, incident: Incident, part: str, before: DeliveryState, outcome: Outcome, now_ms: int) -> None:
        self._heard(outcome, now_ms)
        if isinstance(outcome, Posted):
            self._mark(
                incident,
                part,
                before,
                DeliveryState(SENT, now_ms, outcome.ref),
                self._also(incident, part, before, fresh=True),
            )
            return
        log.warning("a notification was not taken", extra=self._facts(incident, part, outcome.why))
        if not isinstance(outcome, Refused):
            self._mark(incident, part, before, replace(before, state=UNKNOWN))
        elif outcome.hopeless:
            self._mark(
                incident, part, before, replace(before, state=REFUSED), self._also(incident, part, before, fresh=True)
            )
        else:
            self._mark(incident, part, before, DeliveryState("", 0, ""))

    def _mark(
        self,
        incident: Incident,
        part: str,
        before: DeliveryState,
        told: DeliveryState,
        more: dict[str, str] | None = None,
    ) -> bool:
        """Change how a part stands, if it stands as it did."""
        name = f"{self.channel.name}:{part}"
        known = replace(incident, fields={**incident.fields, name: str(before)})
        return self.incidents.change(known, name, str(told), more=more)

    def _also(self, incident: Incident, part: str, leaves: DeliveryState, *, fresh: bool) -> dict[str, str]:
        """What else the channel knows once a part is there. What was found later (not `fresh`) may have been older."""
        name = self.channel.name
        kind, _, which = part.partition("-")
        given = [incident.fields.get(f"{name}:pasted", ""), *self._unpasted(incident)]
        also = {f"{name}:pasted": "\n".join(filter(None, given))} if self._carries(incident, part) else {}
        if kind == "story":
            also |= {f"{name}:stories": which, f"{name}:entries": leaves.detail}
        if kind == "digest":
            also[f"{name}:digests"] = which
        if fresh:
            also[f"{name}:grew"] = _size(incident)
            if kind == "opening":
                also[f"{name}:shown"] = f"{self._shown(incident, leaves.at_ms)} {leaves.at_ms}"
        return also

    def _number(self, incident: Incident, name: str) -> int:
        return number(incident.fields.get(f"{self.channel.name}:{name}", ""))

    def _unpasted(self, incident: Incident) -> list[str]:
        """`message tenant` of the client messages that the channel has not been given."""
        given = incident.fields.get(f"{self.channel.name}:pasted", "").split("\n")
        return [each for each in map(" ".join, incident_text.wanted(incident)) if each not in given]

    def _pasted(self, incident: Incident, unpasted: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """(whom it is for, text) of those that can be filled."""
        split = (each.partition(" ") for each in unpasted)
        found = ((tenant, self.paste(incident, name, tenant)) for name, _, tenant in split)
        return tuple((f"To {tenant}, to paste", filled) for tenant, filled in found if filled)

    def _shown(self, incident: Incident, now_ms: int) -> str:
        message = incident_text.of_incident(incident, self.on_call, now_ms)
        return hashlib.sha256(message.plain().encode()).hexdigest()[:16]

    def _heard(self, outcome: Outcome, now_ms: int) -> None:
        """Pace, and how long to wait after trouble, which people can see."""
        why = "" if isinstance(outcome, Posted) else outcome.why
        if why != self._trouble and not (
            isinstance(outcome, Refused) and outcome.seconds is not None and outcome.seconds < 60
        ):
            self.incidents.trouble(self.channel.name, why, now_ms)
            self._trouble = why
        if isinstance(outcome, Posted) or (isinstance(outcome, Refused) and outcome.hopeless):
            self._backoff, self._not_before = BACKOFF_SECONDS[0], self.clock() + GAP_SECONDS
        else:
            self._wait(outcome.seconds if isinstance(outcome, Refused) else None)

    def _wait(self, named: float | None) -> None:
        self._not_before = self.clock() + max(GAP_SECONDS, self._backoff if named is None else named)
        self._backoff = min(self._backoff * 2, BACKOFF_SECONDS[1])

    def _facts(self, incident: Incident, part: str, why: str) -> dict[str, str]:
        return {"channel": self.channel.name, "incident": incident.id, "part": part, "why": why}


def _size(incident: Incident) -> str:
    """What a digest is worth sending for."""
    return f"{incident.dead} {incident.degraded} {len(incident.tenants)} {len(incident.marks)}"
