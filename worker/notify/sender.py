"""Sends each part of each incident to one channel once.

The incident's hash has one field for each channel and part: `sending` before a post is sent, `sent` with its ref
afterwards, `unknown` if the connection broke in between. An unknown post is searched, and sent again only if it
certainly did not arrive. If it cannot be searched it becomes `ambiguous` and is not sent again, because a later part has
the same facts. Where no later part follows and the channel may have nothing of the incident, it is sent once more, and
says so.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from worker.notify import incident_text
from worker.notify.channels.base import Channel, Outcome, Pace, Post, Posted, Refused, Unfindable, Unknown
from worker.notify.delivery_state import AMBIGUOUS, REFUSED, REPEAT, SENDING, SENT, UNKNOWN, DeliveryState
from worker.notify.incidents import Incident, Incidents, number
from worker.notify.kinds import KIND_INFO
from worker.notify.oncall import OnCall

log = logging.getLogger("failover.worker")

SEARCH_AGAIN_SECONDS = 30.0
READ_AFTER_MS = 60_000  # an opening is read by then
SEARCH_AFTER_MS = 3000  # a post whose connection broke has arrived by then, or never does
NOT_ARRIVED_MS = 20_000  # a slow channel may accept a post after its sender gave up
ORPHANED_MS = 30_000  # a post of another worker without an outcome for so long
UNKNOWN_MS = 3_600_000  # then an unknown post is not searched any more

# (incident, name of the client message, tenant) -> text; "" if it cannot be filled
Paste = Callable[[Incident, str, str], str]


@dataclass
class Sender:
    """Sends to one channel. `paste` fills client messages: each is sent once, in the thread or else with the next part."""

    channel: Channel
    incidents: Incidents
    on_call: OnCall
    paste: Paste = lambda incident, message, tenant: ""
    clock: Callable[[], float] = time.monotonic
    _pace: Pace = field(default_factory=Pace, init=False)
    _search_at: dict[str, float] = field(default_factory=dict, init=False)
    _trouble: str | None = field(default=None, init=False)  # as noted in Redis; None: not known

    def step(self, unsettled: Sequence[Incident], now_ms: int) -> bool:
        """Send the most urgent due part, if the pace allows it. Returns whether the channel was called."""
        if self.clock() < self._pace.not_before:
            return False
        found = ((part, incident) for incident in unsettled for part in islice(self._parts(incident, now_ms), 1))
        due = sorted(found, key=lambda entry: entry[0][0])
        return any(self._send_part(incident, part, now_ms) for (_, part), incident in due)

    def all_sent(self, incident: Incident) -> bool:
        """Whether every part of a resolved incident was sent."""
        return not any(True for _ in self._parts(incident, incident.resolved_ms or 0))

    def _delivery(self, incident: Incident, part: str) -> DeliveryState:
        return DeliveryState.of(incident, self.channel.name, part)

    def _parts(self, incident: Incident, now_ms: int) -> Iterator[tuple[int, str]]:
        """The due parts of an incident in order, each with its rank among the parts of other incidents (0: most urgent)."""
        opening, closing = self._delivery(incident, "opening"), self._delivery(incident, "closing")
        if not opening.state and incident.resolved_ms is not None and not KIND_INFO[incident.kind].notice:
            if not closing.over:
                yield 0, "closing"  # it opened and closed while the channel was down
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
            yield from self._repeats(incident, opening, now_ms, edited=threaded)
        elif not closing.over:
            yield 1, "closing"

    def _in_thread(self, incident: Incident, now_ms: int) -> Iterator[tuple[int, str]]:
        sent = self._number(incident, "stories")
        last, following = self._delivery(incident, f"story-{sent}"), f"story-{sent + 1}"
        if self._delivery(incident, following).open:
            yield 2, following
            return
        over = incident.resolved_ms is not None  # then no later line could join this post
        paced = over or now_ms - last.at_ms >= self.on_call.thread_seconds * 1000
        lines = self.incidents.lines(incident.id) if paced else 0
        if paced and (self._unpasted(incident) or lines > self._number(incident, "entries")):
            yield 2, following
        if over and not self._delivery(incident, "closing").over:
            return
        shown = self._delivery(incident, "shown")  # its state is the hash of the text that is shown
        aged = over or now_ms - shown.at_ms >= self.on_call.edit_seconds * 1000
        if aged and shown.state != self._shown(incident, now_ms):
            yield 3, "edit"

    def _repeats(
        self, incident: Incident, opening: DeliveryState, now_ms: int, *, edited: bool
    ) -> Iterator[tuple[int, str]]:
        """A digest if counts grew and the opening cannot be edited; else a reminder of an open incident."""
        sent = self._number(incident, "digests")
        last, following = self._delivery(incident, f"digest-{sent}") if sent else opening, f"digest-{sent + 1}"
        if self._delivery(incident, following).open:
            yield 2, following
            return
        waited = (now_ms - last.at_ms) / 60_000
        grew = incident.fields.get(f"{self.channel.name}:grew", "") != _size(incident)
        digest = not edited and grew and waited >= self.on_call.digest_minutes * self.channel.digest_factor
        # each reminder waits twice as long as the one before
        lasts = self.on_call.reminder_minutes + (last.at_ms - opening.at_ms) / 60_000
        if digest or (waited >= lasts and not incident.fades):
            yield 2, following

    def _post(self, incident: Incident, part: str, delivery: DeliveryState, now_ms: int) -> Post:
        thread, kind = self._thread(incident), part.partition("-")[0]
        message = self._message(incident, part, delivery, now_ms)
        if kind == "edit":
            return Post(incident, part, message, edit=thread)
        if self._carries(incident, part):
            message = message.with_paste(self._pasted(incident, self._unpasted(incident)))
        rings = bool(message.paste) and now_ms - incident.opened_ms > READ_AFTER_MS  # a reply alone would not
        return Post(incident, part, message, thread=thread, broadcast=rings or kind in ("closing", "digest"))

    def _thread(self, incident: Incident) -> str:
        """The ref of the opening, for edits and replies; "" if the channel has none."""
        opening = self._delivery(incident, "opening")
        return opening.detail if self.channel.edits and opening.state == SENT else ""

    def _carries(self, incident: Incident, part: str) -> bool:
        """Whether this part contains client messages: the story does, and without a thread every part."""
        if part == "opening":
            return not self.channel.edits
        return part.startswith("story") or not self._thread(incident)

    def _message(self, incident: Incident, part: str, delivery: DeliveryState, now_ms: int) -> incident_text.Message:
        kind = part.partition("-")[0]
        if kind == "story":
            begin, end = self._number(incident, "entries"), number(delivery.detail)
            return incident_text.of_story(incident, self.incidents.story(incident.id, begin)[: max(0, end - begin)])
        forms = {"closing": incident_text.of_closing, "digest": incident_text.of_reminder}
        message = forms.get(kind, incident_text.of_incident)(incident, self.on_call, now_ms)
        return message.repeated() if delivery.repeats else message

    def _send_part(self, incident: Incident, part: str, now_ms: int) -> bool:
        """Send, edit or search one part. Returns whether the channel was called."""
        before = self._delivery(incident, part)
        if part == "edit":
            return self._edit(incident, now_ms)
        if before.open:
            return self._search(incident, part, before, now_ms)
        detail = str(self.incidents.lines(incident.id)) if part.startswith("story") else before.state
        leaves = DeliveryState(SENDING, now_ms, detail)
        if not self._mark(incident, part, before, leaves):
            return False  # another worker sends it
        self._settle(incident, part, leaves, self._call_channel(self._post(incident, part, leaves, now_ms)), now_ms)
        return True

    def _call_channel(self, post: Post) -> Outcome:
        try:
            return self.channel.send(post)
        except Exception as error:
            log.exception("a channel failed in our own code", extra={"channel": self.channel.name})
            return Unknown(type(error).__name__)

    def _edit(self, incident: Incident, now_ms: int) -> bool:
        shown = f"{self._shown(incident, now_ms)} {now_ms}"
        outcome = self._call_channel(self._post(incident, "edit", DeliveryState("", 0, ""), now_ms))
        self._note_outcome(outcome, now_ms)
        if isinstance(outcome, Posted):
            self.incidents.change(incident, f"{self.channel.name}:shown", shown)
        elif (
            isinstance(outcome, Refused) and outcome.hopeless
        ):  # a person deleted it: later parts are posts of their own
            opening = self._delivery(incident, "opening")
            self._mark(incident, "opening", opening, replace(opening, state=REFUSED))
        return True

    def _search(self, incident: Incident, part: str, before: DeliveryState, now_ms: int) -> bool:
        """Find out whether a post without an outcome arrived. Returns whether the channel was called."""
        waited = now_ms - before.at_ms
        if waited < (SEARCH_AFTER_MS if before.state == UNKNOWN else ORPHANED_MS):
            return False
        if self.clock() < self._search_at.get(f"{incident.id}:{part}", 0.0):
            return False
        found = self.channel.find(self._post(incident, part, before, now_ms), before.at_ms)
        if isinstance(found, Unknown) and waited > UNKNOWN_MS:
            found = Unfindable(found.why)
        match found:
            case Posted(ref):
                more = self._more_fields(incident, part, before, fresh=False)
                self._mark(incident, part, before, replace(before, state=SENT, detail=ref), more)
            case Refused() if waited >= NOT_ARRIVED_MS:
                self._mark(incident, part, before, before.untried())
            case Refused():
                self._search_at[f"{incident.id}:{part}"] = self.clock() + SEARCH_AFTER_MS / 1000
            case Unknown():
                self._search_at[f"{incident.id}:{part}"] = self.clock() + SEARCH_AGAIN_SECONDS
            case Unfindable() if self._nothing_arrived(incident, part) and not before.repeats:
                self._mark(incident, part, before, DeliveryState(REPEAT, 0, ""))
            case Unfindable(why):
                facts = self._facts(incident, part, why)
                log.warning("a notification may have arrived, it is not sent again", extra=facts)
                more = self._more_fields(incident, part, before, fresh=False)
                self._mark(incident, part, before, replace(before, state=AMBIGUOUS), more)
        return True

    def _nothing_arrived(self, incident: Incident, part: str) -> bool:
        """Whether this is the last part of an incident of which the channel has none for certain."""
        if part == "opening":
            return KIND_INFO[incident.kind].notice
        return part == "closing" and self._delivery(incident, "opening").state != SENT

    def _settle(self, incident: Incident, part: str, before: DeliveryState, outcome: Outcome, now_ms: int) -> None:
        self._note_outcome(outcome, now_ms)
        match outcome:
            case Posted(ref):
                after = DeliveryState(SENT, now_ms, ref)
            case Refused(hopeless=True):
                after = replace(before, state=REFUSED)
            case Refused():
                after = before.untried()
            case Unknown():
                after = replace(before, state=UNKNOWN)
        if not isinstance(outcome, Posted):
            log.warning("a notification was not accepted", extra=self._facts(incident, part, outcome.why))
        more = self._more_fields(incident, part, before, fresh=True) if after.over else None
        self._mark(incident, part, before, after, more)

    def _mark(
        self,
        incident: Incident,
        part: str,
        before: DeliveryState,
        after: DeliveryState,
        more: dict[str, str] | None = None,
    ) -> bool:
        """Change the delivery of a part, if it is still `before`. Returns whether it was."""
        name = f"{self.channel.name}:{part}"
        known = replace(incident, fields={**incident.fields, name: str(before)})
        return self.incidents.change(known, name, str(after), more=more)

    def _more_fields(self, incident: Incident, part: str, leaves: DeliveryState, *, fresh: bool) -> dict[str, str]:
        """Further fields to set once a part arrived. `fresh`: it was sent now, so it shows the present counts."""
        name = self.channel.name
        kind, _, which = part.partition("-")
        given = [incident.fields.get(f"{name}:pasted", ""), *self._unpasted(incident)]
        more = {f"{name}:pasted": "\n".join(filter(None, given))} if self._carries(incident, part) else {}
        if kind == "story":
            more |= {f"{name}:stories": which, f"{name}:entries": leaves.detail}
        if kind == "digest":
            more[f"{name}:digests"] = which
        if fresh:
            more[f"{name}:grew"] = _size(incident)
            if kind == "opening":
                more[f"{name}:shown"] = f"{self._shown(incident, leaves.at_ms)} {leaves.at_ms}"
        return more

    def _number(self, incident: Incident, name: str) -> int:
        return number(incident.fields.get(f"{self.channel.name}:{name}", ""))

    def _unpasted(self, incident: Incident) -> list[str]:
        """`message tenant` of each client message that the channel does not have yet."""
        given = incident.fields.get(f"{self.channel.name}:pasted", "").split("\n")
        return [each for each in map(" ".join, incident_text.wanted(incident)) if each not in given]

    def _pasted(self, incident: Incident, unpasted: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """(heading, text) of those that can be filled."""
        split = (each.partition(" ") for each in unpasted)
        found = ((tenant, self.paste(incident, name, tenant)) for name, _, tenant in split)
        return tuple((f"Message for {tenant}, ready to paste", filled) for tenant, filled in found if filled)

    def _shown(self, incident: Incident, now_ms: int) -> str:
        message = incident_text.of_incident(incident, self.on_call, now_ms)
        return hashlib.sha256(message.plain().encode()).hexdigest()[:16]

    def _note_outcome(self, outcome: Outcome, now_ms: int) -> None:
        """Set the time of the next call, and note a problem of the channel for `failover status`."""
        why = "" if isinstance(outcome, Posted) else outcome.why
        if why != self._trouble and not (
            isinstance(outcome, Refused) and outcome.seconds is not None and outcome.seconds < 60
        ):
            self.incidents.trouble(self.channel.name, why, now_ms)
            self._trouble = why
        self._pace.note(outcome, self.clock())

    def _facts(self, incident: Incident, part: str, why: str) -> dict[str, str]:
        return {"channel": self.channel.name, "incident": incident.id, "part": part, "why": why}


def _size(incident: Incident) -> str:
    """The counts whose growth is worth a digest."""
    return f"{incident.dead} {incident.again} {incident.degraded} {len(incident.tenants)} {len(incident.marks)}"
