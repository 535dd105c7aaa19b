"""Incidents in Redis: one by kind, subject and queue, opened and resolved once across all workers.

Every change is a script that does nothing when somebody else did it already, so that two notifiers (one that was stopped and
goes on, one that took over) tell nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from producer import keyspace
from producer.scripts import Script, ask
from worker.notify.conditions import Condition
from worker.notify.kinds import COUNTED, KIND_INFO, Kind, key_of

_LUA = Path(__file__).parent / "lua"
OPEN, FOLD, CHANGE, CLOSE = (Script.load(_LUA, name) for name in ("open", "fold", "change", "close"))
UNTOLD_FOR_MS = 86_400_000
KEPT_MS = 400 * 86_400_000


@dataclass(frozen=True)
class Entry:
    """A line of a story."""

    at_ms: int
    text: str


@dataclass(frozen=True)
class Incident:
    """One incident. Counts are exact: `dead` by reason and tenant, `saved` (answered by another route than the first),
    `degraded`. `fields`: what each channel was told, as sender.py writes it."""

    id: str
    kind: Kind
    subject: str
    queue: str
    opened_ms: int
    resolved_ms: int | None
    last_ms: int  # of what it counts
    lines: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    until_ms: int | None = None
    tenants: Mapping[str, int] = field(default_factory=dict)
    jobs: tuple[str, ...] = ()
    dead: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    saved: int = 0
    degraded: int = 0
    degraded_of: Mapping[str, int] = field(default_factory=dict)  # by tenant
    late: int = 0  # the most at any one time
    left: int | None = None  # dead letters that nobody had handled when it was over
    example: str = ""  # what the first dead letter died of
    closed_ms: int | None = None  # when it was found to be over; `resolved_ms` is since when it was
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return key_of(self.kind, self.subject, self.queue)

    @property
    def title(self) -> str:
        return KIND_INFO[self.kind].title + (f": {self.subject}" if self.subject else "")

    @property
    def fades(self) -> bool:
        """Open still, though what it tells of is not to be seen any more."""
        return self.resolved_ms is None and self.kind not in COUNTED and not self.marks

    def seconds(self, now_ms: int) -> float:
        return max(0, (self.resolved_ms or now_ms) - self.opened_ms) / 1000


class Incidents:
    """The store."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def open(self, condition: Condition, opened_ms: int, first: str) -> str:
        """The id of the open incident of this kind, subject and queue."""
        told = (condition.kind, condition.subject, condition.queue, opened_ms, first)
        (incident_id,) = ask(self._client, [OPEN.call([keyspace.INCIDENTS], told)])
        return str(incident_id.decode())

    def fold(self, queues: Sequence[str], credited: str | None, *, keep_saved: bool) -> None:
        """Take what was counted since the last time. `credited`: the open outage that explains saved, degraded and dead jobs.
        `keep_saved`: one is about to be opened, the saved jobs are its."""
        told = [str(int(keep_saved)), *([credited] if credited else [])]
        for queue in queues:
            ask(self._client, [FOLD.call([keyspace.news(queue), keyspace.first_news(queue)], [queue, *told])])

    def unsettled(self) -> list[Incident]:
        """Those that are open, and those of which somebody has not been told that they are over; oldest first."""
        opened, untold = ask(self._client, [("HVALS", keyspace.INCIDENTS), ("SMEMBERS", keyspace.UNTOLD_INCIDENTS)])
        return self.named(sorted({entry.decode(errors="replace") for entry in (*opened, *untold)}, key=number))

    def named(self, ids: Sequence[str]) -> list[Incident]:
        """Those of `ids` that there are."""
        replies = ask(self._client, [("HGETALL", keyspace.incident(incident_id)) for incident_id in ids])
        found = (_read(incident_id, raw) for incident_id, raw in zip(ids, replies, strict=True))
        return [incident for incident in found if incident is not None]

    def since(self, begin_ms: int, end_ms: int | None = None) -> list[Incident]:
        """Those opened in a time, oldest first."""
        (ids,) = ask(self._client, [("ZRANGEBYSCORE", keyspace.ALL_INCIDENTS, begin_ms, end_ms or "+inf")])
        return self.named([incident_id.decode() for incident_id in ids])

    def lines(self, incident_id: str) -> int:
        """How many lines its story has."""
        (length,) = ask(self._client, [("LLEN", keyspace.story(incident_id))])
        return int(length)

    def story(self, incident_id: str, start: int = 0) -> list[Entry]:
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
        """Set a field if it still is as it was read; whether it was."""
        before = incident.fields.get(name, "")
        told = (incident.id, name, before, value, json.dumps(more or {}), json.dumps(list(story)))
        (changed,) = ask(self._client, [CHANGE.call([keyspace.incident(incident.id)], told)])
        return bool(changed)

    def close(self, incident: Incident, over_ms: int, last: str) -> bool:
        """Resolve it; whether this call did."""
        keys = [keyspace.incident(incident.id), keyspace.INCIDENTS, keyspace.UNTOLD_INCIDENTS]
        (closed,) = ask(self._client, [CLOSE.call(keys, [incident.id, incident.key, over_ms, last])])
        return bool(closed)

    def all_told(self, incident: Incident) -> None:
        ask(self._client, [("SREM", keyspace.UNTOLD_INCIDENTS, incident.id)])

    def trim(self, now_ms: int) -> None:
        """Entries of incidents that are gone."""
        ask(self._client, [("ZREMRANGEBYSCORE", keyspace.ALL_INCIDENTS, "-inf", now_ms - KEPT_MS)])

    def trouble(self, channel: str, why: str, now_ms: int) -> None:
        """Note that a channel takes nothing, or ("") that it does."""
        note = json.dumps({"why": why, "since_ms": now_ms})
        ask(self._client, [("HSETNX", keyspace.TROUBLE, channel, note) if why else ("HDEL", keyspace.TROUBLE, channel)])

    def troubles(self) -> dict[str, tuple[str, int]]:
        """(why, since when) of the channels that take nothing."""
        (found,) = ask(self._client, [("HGETALL", keyspace.TROUBLE)])
        notes = {channel.decode(errors="replace"): json.loads(note) for channel, note in found.items()}
        return {channel: (note["why"], int(note["since_ms"])) for channel, note in notes.items()}

    def silence(self, key: str, seconds: int, why: str) -> None:
        ask(self._client, [("SET", keyspace.silence(key), why, "EX", seconds)])

    def unsilence(self, key: str) -> bool:
        (removed,) = ask(self._client, [("DEL", keyspace.silence(key))])
        return bool(removed)

    def silenced(self, incidents: Sequence[Incident]) -> dict[str, str]:
        """Who keeps which of them quiet, by id."""
        replies = ask(self._client, [("GET", keyspace.silence(incident.key)) for incident in incidents])
        pairs = zip(incidents, replies, strict=True)
        return {incident.id: why.decode() for incident, why in pairs if isinstance(why, bytes)}


def _read(incident_id: str, raw: Mapping[bytes, bytes]) -> Incident | None:
    """None for one that is gone, or that nobody can read: it must not silence the others."""
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
        lines=tuple(state.get("lines", ())),
        marks=dict(state.get("marks", {})),
        until_ms=state.get("until_ms"),
        tenants=tenants,
        jobs=tuple(fields["first"].split()) if fields.get("first") else tuple(state.get("jobs", ())),
        dead=int(fields.get("dead", 0)),
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
    """A count in an incident's hash, or its id; 0 for what is none."""
    return int(text) if text.isdecimal() else 0


def _counts(fields: Mapping[str, str], prefix: str) -> dict[str, int]:
    """The largest first."""
    found = {name.removeprefix(prefix): int(value) for name, value in fields.items() if name.startswith(prefix)}
    return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))
