"""The pause flags: who set them, why, since when, until when. Claims read them, so no job starts once a flag is set.

`pause_ai_tasks` pauses everything, `pause_ai_tasks:{queue}` one queue. A provider's flag pauses its routes while the other
routes serve; a tenant's flag pauses its jobs while the jobs of other tenants start. Any tool may set a flag to "1" without a
note (except a tenant's, which claims find by its note); who and why are then unknown. A flag with an end is a Redis key with
a TTL, so nobody has to clear it.
"""

from __future__ import annotations

import json
import shlex
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

BUDGET = "budget"  # `who` of a pause that a budget set; producer/lua/shared/pause_flags.lua spells it too
RQ = "rq suspend"  # `who` of RQ's own pause


@dataclass(frozen=True)
class Scope:
    """What a flag pauses: everything, one queue, the routes of one provider, one route (its kill switch), or the jobs of one
    tenant."""

    queue: str | None = None
    provider: str | None = None
    route: str | None = None
    tenant: str | None = None

    @property
    def flag(self) -> str:
        """The Redis key of the flag."""
        if self.tenant is not None:
            return keyspace.paused_tenant(self.tenant)
        if self.route is not None:
            return keyspace.disabled(self.route)
        if self.provider is not None:
            return keyspace.paused_provider(canonical(self.provider))
        return keyspace.PAUSE if self.queue is None else keyspace.pause_of(self.queue)

    @classmethod
    def of(cls, flag: str) -> Scope:
        """The scope that belongs to the Redis key of a flag."""
        if flag.startswith(prefix := keyspace.paused_provider("")):
            return cls(provider=flag.removeprefix(prefix))
        if flag.startswith(prefix := keyspace.disabled("")):
            return cls(route=flag.removeprefix(prefix))
        if flag.startswith(prefix := keyspace.paused_tenant("")):
            return cls(tenant=flag.removeprefix(prefix))
        return cls(queue=flag.removeprefix(keyspace.pause_of("")) if flag != keyspace.PAUSE else None)

    @classmethod
    def named(cls, words: str) -> Scope:
        """The scope that `str` has told so."""
        kind, _, name = words.partition(" ")
        return cls(**{kind: name}) if name and kind in cls.__dataclass_fields__ else cls()

    @property
    def option(self) -> str:
        """The option by which `failover pause` and `failover resume` name it, with a space before it; "" for everything."""
        named = {"--queue": self.queue, "--provider": self.provider, "--tenant": self.tenant}
        return "".join(f" {option} {shlex.quote(name)}" for option, name in named.items() if name is not None)

    def __str__(self) -> str:
        if self.tenant is not None:
            return f"tenant {self.tenant}"
        if self.route is not None:
            return f"route {self.route}"
        if self.provider is not None:
            return f"provider {canonical(self.provider)}"
        return "everything" if self.queue is None else f"queue {self.queue}"


EVERYTHING = Scope()


@dataclass(frozen=True)
class Paused:
    """One flag that is set. If `queue`, `provider`, `route` and `tenant` are None, it pauses everything. `since` and
    `until`: Unix seconds; None is unknown, or no end."""

    queue: str | None
    provider: str | None = None
    route: str | None = None
    who: str | None = None
    why: str | None = None
    since: float | None = None
    until: float | None = None
    tenant: str | None = None

    @property
    def scope(self) -> Scope:
        return Scope(self.queue, self.provider, self.route, self.tenant)

    def concerns(self, queue: str) -> bool:
        """Whether this flag keeps every job of the queue from starting."""
        others = (self.provider, self.route, self.tenant)
        return others == (None, None, None) and self.queue in (None, queue)

    def closes(self, route: str, provider: str) -> bool:
        """Whether this flag keeps every worker from calling this route of this provider."""
        return self.route == route or (self.provider is not None and self.provider == canonical(provider))

    def __str__(self) -> str:
        since = f", since {utc(self.since)}" if self.since else ""
        until = f", until {utc(self.until)}" if self.until else ""
        return f"{self.scope}, by {self.who or 'unknown'}{since}{until}" + (f": {self.why}" if self.why else "")


def utc(seconds: float) -> str:
    """Unix seconds as text for people: `2026-11-28 05:11 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _keys(scope: Scope) -> list[str]:
    keys = [keyspace.PAUSE_NOTES, keyspace.PAUSE, keyspace.SUSPENDED, keyspace.QUEUES, keyspace.AUDIT, keyspace.SPEND]
    return [scope.flag, *keys]


def note_of(*, who: str, why: str) -> str:
    """The note of a flag, in JSON. The script adds `until`."""
    return json.dumps({"who": _clean(who), "why": _clean(why), "since": round(time.time())})


def _clean(text: str) -> str:
    """The text without lone surrogates, which a terminal can pass on for invalid bytes and JSON cannot hold."""
    return text.encode("utf-8", "replace").decode()


def pause(
    client: redis.Redis, scope: Scope = EVERYTHING, *, who: str, why: str, seconds: float | None = None
) -> Paused:
    """Set the flag for `seconds`, or until it is resumed. Returns its state now. Running jobs end; no other job starts.

    A pause that is already set is never shortened, and keeps its reason if this call gives none.
    """
    args = (round((seconds or 0) * 1000), note_of(who=who, why=why), who, keyspace.CONTROL)
    (note,) = ask(client, [PAUSE.call(_keys(scope), args)])
    return _paused(scope, note)


def resume_call(scope: Scope, *, who: str, also_budgets: bool = False, again_at: float | None = None) -> Call:
    """Clear the flag. Reply: the keys of the flags that were set and are now cleared.

    Clearing the flag of everything also clears the other flags that a budget set, if a budget set it or with
    `also_budgets`. `again_at`: the percentage at which the known budgets (or those of the scope's provider) pause again in
    their present interval.
    """
    below = "" if again_at is None else again_at
    provider = canonical(scope.provider) if scope.provider is not None else ""
    args = (who, keyspace.CONTROL, keyspace.WAKE, int(also_budgets), below, provider)
    return RESUME.call(_keys(scope), args)


def resume(client: redis.Redis, scope: Scope = EVERYTHING, *, who: str, again_at: float | None = None) -> list[Scope]:
    """Clear the flag, as `resume_call` describes. Returns the scopes that were paused."""
    (cleared,) = ask(client, [resume_call(scope, who=who, again_at=again_at)])
    return [Scope.of(flag.decode()) for flag in cleared]


def paused(client: redis.Redis, queues: Sequence[str]) -> list[Paused]:
    """Every flag that is set: the one of everything, those of `queues`, any other with a note, and RQ's `rq suspend`."""
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
    """The flags that keep every job of the queue from starting."""
    return [flag for flag in paused(client, [queue]) if flag.concerns(queue)]


def _paused(scope: Scope, raw_note: bytes | None) -> Paused:
    try:
        note = json.loads(raw_note or b"{}")
    except ValueError:
        note = {}
    fields = {name: note.get(name) for name in ("who", "why", "since", "until")} if isinstance(note, dict) else {}
    fields |= {name: _clean(str(fields[name])) for name in ("who", "why") if fields.get(name) is not None}
    return Paused(scope.queue, scope.provider, scope.route, tenant=scope.tenant, **fields)


def _set(value: bytes) -> bool:
    """Whether a flag's value means paused, as running_clock.lua reads it: empty and "0" do not, anything else does."""
    return value not in (b"", b"0")


def look(queues: Sequence[str], providers: Sequence[str], routes: Sequence[str] = ()) -> Call:
    """Read the flags. Reply: 1 or 0 for everything, each queue, each provider (paused), and each route (disabled)."""
    keys = [keyspace.PAUSE, keyspace.SUSPENDED, keyspace.PAUSE_NOTES]
    for queue in queues:
        keys += [keyspace.pause_of(queue), keyspace.stopped(queue)]
    return LOOK.call([*keys, *flag_keys(providers, routes)], [len(queues), len(providers)])


def flag_keys(providers: Sequence[str], routes: Sequence[str]) -> list[str]:
    """The keys of the flags of providers, then of routes."""
    paused = [keyspace.paused_provider(provider) for provider in providers]
    return [*paused, *(keyspace.disabled(route) for route in routes)]
