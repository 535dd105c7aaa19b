"""A condition: one problem that exists now; all of them at one time; and how to see cheaply that there is still none."""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import redis
from redis.exceptions import ResponseError

from producer import keyspace
from producer.scripts import Script, ask
from worker.humanize import many, one_line
from worker.money.budget_state import month_of
from worker.notify.kinds import Kind, key_of
from worker.notify.oncall import OnCall

DIGEST = Script.load(Path(__file__).parent / "lua", "digest")
LONGEST_SECONDS = 60.0  # after it everything is read again, whatever the digest says
FIRST = 5  # job ids in a message
LONGEST_NAME = 60  # characters of a tenant, in a title


@dataclass(frozen=True)
class Condition:
    """One problem that people should know about while it exists.

    `title`: what is wrong, "" for the title of the kind and the subject. `size`: how many jobs or workers, and whose: a push
    message shows only title and size. `lines`: its current state. `marks`: facts that get a line in the incident's story,
    the key when the fact begins and the value when it ends. `tenants`: late jobs by tenant; `late`: all late jobs.
    `until_ms`: Unix time of the next change that needs no person, such as the end of a cooldown. `since_ms`: when a refusal
    began, 0 if that is not known. `commands`: shell commands that help now, beside those of the kind.
    """

    kind: Kind
    subject: str = ""
    queue: str = ""
    lines: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    tenants: Mapping[str, int] = field(default_factory=dict)
    late: int = 0
    jobs: tuple[str, ...] = ()
    until_ms: int | None = None
    since_ms: int = 0
    title: str = ""
    size: str = ""
    commands: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return key_of(self.kind, self.subject, self.queue)


@dataclass(frozen=True)
class Snapshot:
    """All conditions at one time. `succeeded_ms`: by provider, the Unix time of the last answer of one of its routes.
    `half_open`: providers with a half-open route, which no job has probed yet. `workers`: how many of ours are alive.
    `overdue`: jobs past their promised time."""

    now_ms: int
    conditions: tuple[Condition, ...]
    succeeded_ms: Mapping[str, int] = field(default_factory=dict)
    half_open: frozenset[str] = frozenset()
    queues: tuple[str, ...] = ()
    workers: int = 1
    overdue: int = 0

    @property
    def late(self) -> int:
        """Jobs so late that their clients should get a message (`late_minutes` of policies/oncall.yaml)."""
        return sum(condition.late for condition in self.conditions)


def waiting_size(jobs: int) -> str:
    """`12 jobs wait`."""
    return f"{many(jobs, 'job')} wait" + ("s" if jobs == 1 else "")


def late_size(late: int, tenants: Mapping[str, int]) -> str:
    """`12 late of acme`; "" without late jobs."""
    return f"{late:,} late{of_tenants(tenants)}" if late else ""


def of_tenants(tenants: Mapping[str, int]) -> str:
    """` of acme`, ` of acme and 2 other clients`: the one with the most jobs is named."""
    if not tenants:
        return ""
    others = len(tenants) - 1
    named = one_line(next(iter(tenants)), LONGEST_NAME)
    return f" of {named}" + (f" and {many(others, 'other client')}" if others else "")


class Quiet:
    """Remembers the digest (lua/digest.lua) at which the last whole step found no condition and no incident."""

    def __init__(self, client: redis.Redis, on_call: OnCall) -> None:
        self._client, self._on_call = client, on_call
        self._asked: Hashable = None  # the digest that was read last
        self._known: Hashable = None  # the one at which nothing was wrong
        self._until = 0.0  # monotonic

    def lasts(self, queues: Iterable[str], routes: Iterable[str], also: Hashable) -> bool:
        """Whether a step would find nothing again. `queues`, `routes`: of the last step. `also`: what else it reads."""
        try:
            (digest,) = ask(self._client, [DIGEST.call(*self._words(list(queues), routes))])
        except ResponseError:  # a key has the wrong type: the step leaves its source out
            digest = None
        self._asked = digest and (digest, also)
        return self._asked is not None and self._asked == self._known and time.monotonic() < self._until

    def seen(self, *, nothing: bool) -> None:
        """A whole step has followed `lasts`. `nothing`: it found no condition and no incident."""
        self._known = self._asked if nothing else None
        self._until = time.monotonic() + LONGEST_SECONDS

    def _words(self, queues: list[str], routes: Iterable[str]) -> tuple[list[str], list[str | int]]:
        month = month_of(datetime.now(UTC))
        keys = [
            keyspace.PAUSE, keyspace.SUSPENDED, keyspace.PAUSE_NOTES, keyspace.QUEUES, keyspace.WORKERS,
            keyspace.ALERT_THRESHOLDS + month, keyspace.SPEND, keyspace.LOST, keyspace.INCIDENTS, keyspace.UNTOLD_INCIDENTS,
        ]  # fmt: skip
        for queue in queues:
            keys += [
                keyspace.pause_of(queue),
                keyspace.queue(queue),
                keyspace.round_robin(queue),
                keyspace.promised(queue),
                keyspace.news(queue),
            ]
        keys += [keyspace.breaker(route) for route in routes]
        floods = sys.maxsize if self._on_call.flood_jobs is None else self._on_call.flood_jobs
        late_ms = int(self._on_call.late_minutes * 60_000)
        return keys, [len(queues), late_ms, floods, keyspace.WORKER, keyspace.routes_of("")]
