"""The pause flags: who set them, why, since when, until when. Claims read them, so nothing starts after one is set.

`pause_ai_tasks` stops everything, `pause_ai_tasks:{queue}` one queue, and a provider's flag closes its routes while others
serve. Any tool may set the bare flag to "1"; then who and why are simply not known. A flag with an end is a Redis key with
a TTL, so it needs nobody to clear it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from producer import keyspace
from producer.scripts import Call, Script, ask
from worker.routes.names import canonical

_LUA = Path(__file__).parent / "lua"
PAUSE, RESUME, LOOK = (Script.load(_LUA, name) for name in ("pause", "resume", "look"))

BUDGET = (
    "budget"  # who: the budget's webhook or poll, and not a person; producer/lua/shared/pause_flags.lua spells it too
)
RQ = "rq suspend"  # who: RQ's own pause


@dataclass(frozen=True)
class Scope:
    """What a flag stops: everything, one queue, the routes of one provider, or one route (its kill switch)."""

    queue: str | None = None
    provider: str | None = None
    route: str | None = None

    @property
    def flag(self) -> str:
        """The flag's key."""
        if self.route is not None:
            return keyspace.disabled(self.route)
        if self.provider is not None:
            return keyspace.paused_provider(canonical(self.provider))
        return keyspace.PAUSE if self.queue is None else keyspace.pause_of(self.queue)

    @classmethod
    def of(cls, flag: str) -> Scope:
        """The scope of a flag's key."""
        if flag.startswith(prefix := keyspace.paused_provider("")):
            return cls(provider=flag.removeprefix(prefix))
        if flag.startswith(prefix := keyspace.disabled("")):
            return cls(route=flag.removeprefix(prefix))
        return cls(queue=flag.removeprefix(keyspace.pause_of("")) if flag != keyspace.PAUSE else None)

    def __str__(self) -> str:
        if self.route is not None:
            return f"route {self.route}"
        if self.provider is not None:
            return f"provider {canonical(self.provider)}"
        return "everything" if self.queue is None else f"queue {self.queue}"


EVERYTHING = Scope()


@dataclass(frozen=True)
class Paused:
    """One flag that is set. `queue`, `provider` and `route` None: everything. `since` and `until` in Unix seconds."""

    queue: str | None
    provider: str | None = None
    route: str | None = None
    who: str | None = None
    why: str | None = None
    since: float | None = None
    until: float | None = None

    @property
    def scope(self) -> Scope:
        return Scope(self.queue, self.provider, self.route)

    def concerns(self, queue: str) -> bool:
        """Whether no job of this queue starts for it."""
        return self.provider is None and self.route is None and self.queue in (None, queue)

    def closes(self, route: str, provider: str) -> bool:
        """Whether nobody calls this route of this provider for it."""
        return self.route == route or (self.provider is not None and self.provider == canonical(provider))

    def __str__(self) -> str:
        since = f", since {utc(self.since)}" if self.since else ""
        until = f", until {utc(self.until)}" if self.until else ""
        return f"{self.scope}, by {self.who or 'unknown'}{since}{until}" + (f": {self.why}" if self.why else "")


def utc(seconds: float) -> str:
    """A time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _keys(scope: Scope) -> list[str]:
    keys = [keyspace.PAUSE_NOTES, keyspace.PAUSE, keyspace.SUSPENDED, keyspace.QUEUES, keyspace.AUDIT, keyspace.SPEND]
    return [scope.flag, *keys]


def note_of(*, who: str, why: str) -> str:
    """What stands beside a flag, in JSON; the script adds until when."""
    return json.dumps({"who": _clean(who), "why": _clean(why), "since": round(time.time())})


def _clean(text: str) -> str:
    """Without the halves of characters that a terminal's wrong bytes leave, which no JSON may hold."""
    return text.encode("utf-8", "replace").decode()


def pause(
    client: redis.Redis, scope: Scope = EVERYTHING, *, who: str, why: str, seconds: float | None = None
) -> Paused:
    """Set the flag, for `seconds` or until it is resumed; how it stands now. Running jobs end; no other starts.

    A pause that is set already is never shortened, and keeps its reason if this one has none.
    """
    told = (round((seconds or 0) * 1000), note_of(who=who, why=why), who, keyspace.CONTROL)
    (note,) = ask(client, [PAUSE.call(_keys(scope), told)])
    return _paused(scope, note)


def resume_call(scope: Scope, *, who: str, also_budgets: bool = False, again_at: float | None = None) -> Call:
    """Clear the flag. Reply: the flags that were set.

    With the general one, if the budget set it or with `also_budgets`, go those that the budget set beside it. `again_at`:
    the percentage at which the known budgets (or the scope's provider's) pause again, in their present interval.
    """
    below = "" if again_at is None else again_at
    provider = canonical(scope.provider) if scope.provider is not None else ""
    told = (who, keyspace.CONTROL, keyspace.WAKE, int(also_budgets), below, provider)
    return RESUME.call(_keys(scope), told)


def resume(client: redis.Redis, scope: Scope = EVERYTHING, *, who: str, again_at: float | None = None) -> list[Scope]:
    """Send `resume_call`; what was paused."""
    (cleared,) = ask(client, [resume_call(scope, who=who, again_at=again_at)])
    return [Scope.of(flag.decode()) for flag in cleared]


def paused(client: redis.Redis, queues: Sequence[str]) -> list[Paused]:
    """Every flag that is set: the general one first, those of `queues` and any that has a note, RQ's `rq suspend`."""
    raw_notes, suspended = ask(client, [("HGETALL", keyspace.PAUSE_NOTES), ("EXISTS", keyspace.SUSPENDED)])
    notes = {flag.decode(): value for flag, value in raw_notes.items()}
    flags = list(dict.fromkeys([keyspace.PAUSE, *map(keyspace.pause_of, queues), *sorted(notes)]))
    found = []
    for flag, value in zip(flags, ask(client, [("GET", flag) for flag in flags]), strict=True):
        if isinstance(value, bytes) and _set(value):
            found.append(_paused(Scope.of(flag), notes.get(flag)))
    if suspended == 1:
        found.append(Paused(None, who=RQ, why="`rq resume` ends it"))
    return found


def holding(client: redis.Redis, queue: str) -> list[Paused]:
    """The flags for which no job of the queue starts."""
    return [flag for flag in paused(client, [queue]) if flag.concerns(queue)]


def _paused(scope: Scope, raw_note: bytes | None) -> Paused:
    try:
        note = json.loads(raw_note or b"{}")
    except ValueError:
        note = {}
    told = {name: note.get(name) for name in ("who", "why", "since", "until")} if isinstance(note, dict) else {}
    told |= {name: _clean(str(told[name])) for name in ("who", "why") if told.get(name) is not None}
    return Paused(scope.queue, scope.provider, scope.route, **told)


def _set(value: bytes) -> bool:
    """As claim.lua reads it: empty and "0" are running; anything else is paused."""
    return value not in (b"", b"0")


def look(queues: Sequence[str], providers: Sequence[str], routes: Sequence[str] = ()) -> Call:
    """Reply: 1 or 0 for everything, for each queue, for each provider: whether it is paused; for each route: whether it is
    disabled."""
    keys = [keyspace.PAUSE, keyspace.SUSPENDED, keyspace.PAUSE_NOTES]
    for queue in queues:
        keys += [keyspace.pause_of(queue), keyspace.stopped(queue)]
    return LOOK.call([*keys, *flag_keys(providers, routes)], [len(queues), len(providers)])


def flag_keys(providers: Sequence[str], routes: Sequence[str]) -> list[str]:
    paused = [keyspace.paused_provider(provider) for provider in providers]
    return [*paused, *(keyspace.disabled(route) for route in routes)]
