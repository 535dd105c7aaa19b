"""Incidents in Redis: one open incident for each kind, subject and queue, opened and resolved once across all workers.

Every change is a script that does nothing if another notifier made it already. So two notifiers (one that was suspended and
continues, and one that took over) send nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from producer import keyspace
from producer.scripts import Script, although_full, ask
from worker.control.audit_trail import audited
from worker.humanize import counted, many
from worker.notify.condition import Condition, of_tenants
from worker.notify.kinds import COUNTED, KIND_INFO, OUTAGES, Kind, key_of

_LUA = Path(__file__).parent / "lua"
OPEN, FOLD, CHANGE, CLOSE = (Script.load(_LUA, name) for name in ("open", "fold", "change", "close"))
UNDELIVERED_FOR_MS = 86_400_000  # then no channel tries to send a resolved incident any more
REASONS_IN_TITLE = 3  # of dead letters
KEPT_MS = 400 * 86_400_000  # incidents and their stories, for the monthly review


@dataclass(frozen=True)
class Entry:
    """One line of an incident's story. `at_ms`: Unix time."""

    at_ms: int
    text: str


@dataclass(frozen=True)
class Incident:
    """One incident. Times are Unix times in milliseconds. Counts are exact: `dead` (jobs, each once; `again` counts their later
    deaths, after a requeue), `saved` (jobs answered by another route than the first) and `degraded`. `fields`: the hash itself,
    with the deliveries of each channel (sender.py)."""

    id: str
    kind: Kind
    subject: str
    queue: str
    opened_ms: int
    resolved_ms: int | None
    last_ms: int  # when a counted job came last
    what: str = ""  # what is wrong, where the title of the kind does not say it
    size: str = ""  # how many jobs or workers now, and whose
    lines: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    until_ms: int | None = None
    commands: tuple[str, ...] = ()  # of its state, beside those of the kind
    tenants: Mapping[str, int] = field(default_factory=dict)
    jobs: tuple[str, ...] = ()
    dead: int = 0
    again: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    saved: int = 0
    degraded: int = 0
    degraded_of: Mapping[str, int] = field(default_factory=dict)  # by tenant
    late: int = 0  # the highest count at any one time
    left: int | None = None  # dead letters that were unhandled at its end
    example: str = ""  # the error of the first dead letter
    closed_ms: int | None = None  # when a notifier closed it; `resolved_ms`: when the problem ended
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return key_of(self.kind, self.subject, self.queue)

    @property
    def title(self) -> str:
        """One line: what is wrong, how many jobs, whose, because a push message shows nothing else.

        `12 dead letters of acme (exhausted 12)`, `All AI providers are down: 240 jobs wait`.
        """
        if self.kind is Kind.DEAD_LETTERS and self.dead:
            why = f" ({counted(self.reasons, REASONS_IN_TITLE)})" if self.reasons else ""
            return f"{many(self.dead, 'dead letter')}{of_tenants(self.tenants)}{why}"
        if self.kind is Kind.DEGRADED and self.degraded:
            return f"{many(self.degraded, 'degraded answer')}{of_tenants(self.degraded_of)}"
        what = self.what or KIND_INFO[self.kind].title + (f": {self.subject}" if self.subject else "")
        size = self.size if self.resolved_ms is None else ""
        return f"{what}: {size}" if size else what

    @property
    def is_open(self) -> bool:
        """Whether it is a problem that is not resolved. A notice is none."""
        return self.resolved_ms is None and not KIND_INFO[self.kind].notice

    @property
    def fades(self) -> bool:
        """Whether it is still open although its condition is gone."""
        lasting = self.kind in (*COUNTED, Kind.LOST) or KIND_INFO[self.kind].notice
        return self.resolved_ms is None and not lasting and not self.marks

    def seconds(self, now_ms: int) -> float:
        """Its duration in seconds, up to now while it is open."""
        return max(0, (self.resolved_ms or now_ms) - self.opened_ms) / 1000


def explains(each: Condition | Incident) -> bool:
    """Whether it can be the reason why jobs are late, reduced or dead; a pause of one client is none for the others."""
    return each.kind in OUTAGES and not (each.kind is Kind.PAUSED and each.subject.startswith("tenant "))


def message_for_late_jobs(unsettled: Iterable[Incident]) -> str:
    """The client message for late jobs now: that of the outage which delays them, if one is open."""
    outages = [each for each in unsettled if explains(each) and each.resolved_ms is None and not each.fades]
    first = min(outages, key=lambda each: OUTAGES.index(each.kind), default=None)
    return KIND_INFO[first.kind if first else Kind.LATE].message


class Incidents:
    """The incidents in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def open(self, condition: Condition, opened_ms: int, first: str) -> str:
        """The id of the open incident of this kind, subject and queue. A new one begins its story with the line `first`."""
        args = (condition.kind, condition.subject, condition.queue, opened_ms, first)
        (incident_id,) = ask(self._client, [OPEN.call([keyspace.INCIDENTS], args)])
        return str(incident_id.decode())

    def fold(self, queues: Sequence[str], credited: str | None, *, keep_saved: bool) -> None:
        """Move the counts since the last call into incidents. `credited`: id of the open outage that explains saved,
        degraded and dead jobs. `keep_saved`: leave the saved jobs for an outage that is about to be opened."""
        args = [str(int(keep_saved)), *([credited] if credited else [])]
        for queue in queues:
            ask(self._client, [FOLD.call([keyspace.news(queue), keyspace.first_news(queue)], [queue, *args])])

    def unsettled(self) -> list[Incident]:
        """The open incidents, and resolved ones whose closing was not sent to every channel yet; oldest first."""
        opened, undelivered = ask(
            self._client, [("HVALS", keyspace.INCIDENTS), ("SMEMBERS", keyspace.UNTOLD_INCIDENTS)]
        )
        return self.named(sorted({entry.decode(errors="replace") for entry in (*opened, *undelivered)}, key=number))

    def named(self, ids: Sequence[str]) -> list[Incident]:
        """The incidents with these ids; unknown ids are left out."""
        replies = ask(self._client, [("HGETALL", keyspace.incident(incident_id)) for incident_id in ids])
        found = (_read(incident_id, raw) for incident_id, raw in zip(ids, replies, strict=True))
        return [incident for incident in found if incident is not None]

    def since(self, begin_ms: int, end_ms: int | None = None) -> list[Incident]:
        """The incidents opened between two Unix times in milliseconds, oldest first."""
        (ids,) = ask(self._client, [("ZRANGEBYSCORE", keyspace.ALL_INCIDENTS, begin_ms, end_ms or "+inf")])
        return self.named([incident_id.decode() for incident_id in ids])

    def lines(self, incident_id: str) -> int:
        """The number of entries in its story."""
        (length,) = ask(self._client, [("LLEN", keyspace.story(incident_id))])
        return int(length)

    def story(self, incident_id: str, start: int = 0) -> list[Entry]:
        """The entries of its story from index `start` on, oldest first."""
        (lines,) = ask(self._client, [("LRANGE", keyspace.story(incident_id), start, -1)])
        return [Entry(**json.loads(line)) for line in lines]

    def change(
        self,
        incident: Incident,
        name: str,
        value: str,
        *,
        more: Mapping[str, str | int] | None = None,
        story: Sequence[str] = (),
    ) -> bool:
        """Set a field if it still has the value that was read. `more`: further fields to set with it; `story`: lines to
        add.

        Returns whether it was set.
        """
        before = incident.fields.get(name, "")
        args = (incident.id, name, before, value, json.dumps(more or {}), json.dumps(list(story)))
        (changed,) = ask(self._client, [CHANGE.call([keyspace.incident(incident.id)], args)])
        return bool(changed)

    def close(self, incident: Incident, over_ms: int, last: str) -> bool:
        """Resolve it as of `over_ms`, and end its story with the line `last`. Returns whether this call did it."""
        keys = [keyspace.incident(incident.id), keyspace.INCIDENTS, keyspace.UNTOLD_INCIDENTS]
        (closed,) = ask(self._client, [CLOSE.call(keys, [incident.id, incident.key, over_ms, last])])
        return bool(closed)

    def mark_delivered(self, incident: Incident) -> None:
        """Every channel has the closing of this resolved incident."""
        ask(self._client, [("SREM", keyspace.UNTOLD_INCIDENTS, incident.id)])

    def trim(self, now_ms: int) -> None:
        """Remove ids of expired incidents from the index."""
        ask(self._client, [("ZREMRANGEBYSCORE", keyspace.ALL_INCIDENTS, "-inf", now_ms - KEPT_MS)])

    def trouble(self, channel: str, why: str, now_ms: int) -> None:
        """Note why a channel accepts no messages; `why` "": it accepts them again."""
        note = json.dumps({"why": why, "since_ms": now_ms})
        noted = ("HSETNX", keyspace.TROUBLE, channel, note) if why else ("HDEL", keyspace.TROUBLE, channel)
        ask(self._client, [although_full(noted)])

    def troubles(self) -> dict[str, tuple[str, int]]:
        """(why, since when in Unix milliseconds) by name, of the channels that accept no messages."""
        (found,) = ask(self._client, [("HGETALL", keyspace.TROUBLE)])
        notes = {channel.decode(errors="replace"): json.loads(note) for channel, note in found.items()}
        return {channel: (note["why"], int(note["since_ms"])) for channel, note in notes.items()}

    def silence(self, incident: Incident, seconds: int, *, who: str, why: str) -> None:
        """Send no messages of incidents with its key for `seconds`."""
        note = who + (f": {why}" if why else "")
        lasting = ("SET", keyspace.silence(incident.key), note, "EX", seconds)
        ask(self._client, [although_full(lasting, audited("silence", who, incident=incident.key, why=why))])

    def unsilence(self, incident: Incident, *, who: str) -> bool:
        """End a silence. Returns whether there was one."""
        end = ("DEL", keyspace.silence(incident.key))
        (removed, _) = ask(self._client, [end, audited("unsilence", who, incident=incident.key)])
        return bool(removed)

    def silenced(self, incidents: Sequence[Incident]) -> dict[str, str]:
        """By id, who silenced an incident and why."""
        replies = ask(self._client, [("GET", keyspace.silence(incident.key)) for incident in incidents])
        pairs = zip(incidents, replies, strict=True)
        return {incident.id: why.decode() for incident, why in pairs if isinstance(why, bytes)}


def _read(incident_id: str, raw: Mapping[bytes, bytes]) -> Incident | None:
    """None for an expired or unreadable incident, so that the others are still sent."""
    try:
        return _incident(incident_id, raw)
    except (ValueError, TypeError, AttributeError):
        return None


def _incident(incident_id: str, raw: Mapping[bytes, bytes]) -> Incident | None:
    fields = {name.decode(): value.decode(errors="replace") for name, value in raw.items()}
    if "kind" not in fields or fields["kind"] not in Kind.__members__.values():
        return None
    state = json.loads(fields.get("state", "{}"))
    kind = Kind(fields["kind"])
    counted = "dead:tenant:" if kind is Kind.DEAD_LETTERS else "degraded:tenant:"
    tenants = state.get("tenants") or _counts(fields, counted)
    return Incident(
        id=incident_id,
        kind=kind,
        subject=fields.get("subject", ""),
        queue=fields.get("queue", ""),
        opened_ms=int(fields.get("opened_ms", 0)),
        resolved_ms=int(fields["resolved_ms"]) if "resolved_ms" in fields else None,
        last_ms=int(fields.get("last_ms", fields.get("opened_ms", 0))),
        what=state.get("title", ""),
        size=state.get("size", ""),
        lines=tuple(state.get("lines", ())),
        marks=dict(state.get("marks", {})),
        until_ms=state.get("until_ms"),
        commands=tuple(state.get("commands", ())),
        tenants=tenants,
        jobs=tuple(fields["first"].split()) if fields.get("first") else tuple(state.get("jobs", ())),
        dead=int(fields.get("dead", 0)),
        again=int(fields.get("dead:again", 0)),
        reasons=_counts(fields, "dead:reason:"),
        saved=int(fields.get("saved", 0)),
        degraded=int(fields.get("degraded", 0)),
        degraded_of=_counts(fields, "degraded:tenant:"),
        late=int(fields.get("late", 0)),
        left=int(fields["left"]) if "left" in fields else None,
        example=fields.get("example", ""),
        closed_ms=int(fields["closed_ms"]) if "closed_ms" in fields else None,
        fields=fields,
    )


def number(text: str) -> int:
    """A count in an incident's hash, or an id, as a number; 0 if it is none."""
    return int(text) if text.isdecimal() else 0


def _counts(fields: Mapping[str, str], prefix: str) -> dict[str, int]:
    """Counts by the rest of the field's name, the largest first."""
    found = {name.removeprefix(prefix): int(value) for name, value in fields.items() if name.startswith(prefix)}
    return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))
