"""What stands now, as people should know of it: looked at anew each time, so that nothing has to be remembered."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import redis

from producer import keyspace
from producer.client import DEFAULT_QUEUE
from producer.keyspace import JobField
from producer.scripts import ask
from worker.breakers import health
from worker.breakers.health import Health
from worker.control import worker_registry
from worker.control.pause import BUDGET, Paused, paused
from worker.humanize import counted, lasted, many
from worker.money import billing_alerts, budget_state
from worker.money.budget_state import CapStatus
from worker.notify.kinds import Kind, key_of
from worker.notify.oncall import OnCall
from worker.queue import fair_queue
from worker.queue.dead_letters import now_ms
from worker.routes.names import canonical

log = logging.getLogger("failover.worker")

REFUSED = {  # a rest's reason (worker/errors/catalog.py), as people say it
    "unauthorized": "refuses the key",
    "forbidden": "forbids it",
    "billing": "wants to be paid",
    "quota": "says that the quota is used up",
    "no_such_model": "does not know the model",
}
LONG_REST_SECONDS = 60.0  # a shorter one is a rate limit's, and no matter for people
LATE_EVERY_MS = 2000
LATE_READ = 2000  # late jobs whose tenants are counted
FIRST = 5  # job ids that a message names
USERS_TOLD = 5  # one by one, of those that have reached an alert threshold
CRASHES = 3  # workers that vanished, and it is a loop


@dataclass(frozen=True)
class Condition:
    """Something that people should know while it lasts.

    `lines` say how it stands; `marks` are worth a line in the story when they begin to be so (key) and when they end (value).
    `tenants`: late jobs of each, `late` of all. `until_ms`: when something may change by itself.
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

    @property
    def key(self) -> str:
        return key_of(self.kind, self.subject, self.queue)


@dataclass(frozen=True)
class Snapshot:
    """Everything that stands. `succeeded_ms`: by provider, when a route of it last answered. `half_open`: providers with a
    route of which nobody knows whether it is well again: no job has tried it since."""

    now_ms: int
    conditions: tuple[Condition, ...]
    succeeded_ms: Mapping[str, int] = field(default_factory=dict)
    half_open: frozenset[str] = frozenset()
    queues: tuple[str, ...] = ()

    @property
    def late(self) -> int:
        """Jobs that are later than clients should wait without a word."""
        return sum(condition.late for condition in self.conditions)


class ConditionReader:
    """Looks. `dangers`: what a check of Redis found lately (notifier.py asks once a minute)."""

    def __init__(self, client: redis.Redis, on_call: OnCall, alert_thresholds: Sequence[float]) -> None:
        self._client, self._on_call, self._alert_thresholds = client, on_call, alert_thresholds
        self.queues: list[str] = [DEFAULT_QUEUE]
        self._late_at, self._late_found = -LATE_EVERY_MS, tuple[Condition, ...]()
        self.dangers: tuple[str, ...] = ()

    def look(self) -> Snapshot:
        client, now = self._client, now_ms(self._client)
        self.queues = worker_registry.queues(client, DEFAULT_QUEUE)
        flags = paused(client, self.queues)
        usable = worker_registry.usable(worker_registry.views(client))
        standing = health.of_routes(client, list(usable))
        held = {name for name, route in usable.items() if any(flag.closes(name, route["provider"]) for flag in flags)}
        sources = (
            lambda: _routes(usable, standing, held, now, lambda: self._waiting(())),
            lambda: _flags(flags, lambda: self._waiting(flags)),
            self._spends,
            lambda: self._late_jobs(now),
            lambda: self._gone(now),
        )
        conditions = [condition for source in sources for condition in _readable(source)]
        if self.dangers:
            conditions.append(Condition(Kind.REDIS_UNSAFE, lines=self.dangers))
        succeeded: dict[str, int] = {}
        for name, route in usable.items():
            provider = canonical(route["provider"])
            succeeded[provider] = max(succeeded.get(provider, 0), standing[name].succeeded_ms)
        half_open = {canonical(usable[name]["provider"]) for name in usable if standing[name].breaker == "half-open"}
        return Snapshot(now, tuple(conditions), succeeded, frozenset(half_open), tuple(self.queues))

    def _waiting(self, flags: Sequence[Paused]) -> int:
        """Jobs that wait in the queues that are paused; without flags, in all."""
        names = [name for name in self.queues if not flags or any(flag.concerns(name) for flag in flags)]
        queued = ask(self._client, [fair_queue.length_call(name) for name in names])
        scheduled = ask(self._client, [("ZCARD", keyspace.scheduled(name)) for name in names])
        return sum(int(length) for length, _ in queued) + sum(map(int, scheduled))

    def _late_jobs(self, now: int) -> tuple[Condition, ...]:
        """Not at every look: thousands of late jobs cost milliseconds."""
        if not 0 <= now - self._late_at < LATE_EVERY_MS:
            self._late_at = now
            self._late_found = tuple(found for queue in self.queues if (found := self._late(queue, now)).late)
        return self._late_found

    def _late(self, queue: str, now: int) -> Condition:
        limit = now - int(self._on_call.late_minutes * 60_000)
        promised = keyspace.promised(queue)
        count, ids = ask(
            self._client,
            [
                ("ZCOUNT", promised, "-inf", limit),
                ("ZRANGEBYSCORE", promised, "-inf", limit, "LIMIT", 0, LATE_READ),
            ],
        )
        names = [job_id.decode(errors="replace") for job_id in ids]
        owners = ask(self._client, [("HGET", keyspace.job(name), JobField.TENANT) for name in names])
        tenants = dict(Counter(owner.decode(errors="replace") for owner in owners if owner).most_common())
        more = f" (of the first {LATE_READ:,})" if count > LATE_READ else ""
        line = (
            f"{many(count, 'job')} more than {lasted(self._on_call.late_minutes * 60)} past the promise: "
            f"{counted(tenants)}{more}"
        )
        marks = {f"{tenant} waits": f"{tenant} waits no more" for tenant in tenants}
        return Condition(Kind.LATE, "", queue, (line,), marks, tenants, count, tuple(names[:FIRST]))

    def _spends(self) -> Iterator[Condition]:
        cap_statuses = list(budget_state.standing(self._client).cap_statuses.values())
        users = [status for status in cap_statuses if status.scope.startswith("user:")]
        others = [status for status in cap_statuses if not status.scope.startswith("user:")]
        for status in cap_statuses if len(users) <= USERS_TOLD else others:
            yield from self._cap_status(status)
        if len(users) > USERS_TOLD:
            lines = (
                f"{len(users)} users have reached an alert threshold: `failover budget show --by user`",
                *map(str, users[:FIRST]),
            )
            yield Condition(Kind.SPEND, "users", lines=lines)
        for known in billing_alerts.known(self._client):
            reached = [step for step in self._alert_thresholds if known.percent >= step]
            if reached and known.budget != billing_alerts.OWN_NAME:
                subject = f"{known}: {max(reached):g}%"
                yield Condition(Kind.SPEND, subject, lines=(f"{known} has used {known.percent:.4g}% of its budget",))

    def _cap_status(self, status: CapStatus) -> Iterator[Condition]:
        if reached := [step for step in self._alert_thresholds if status.step >= step]:
            lines = [str(status)]
            if reached[-1] == self._alert_thresholds[-1]:
                lines.append("Its jobs cost less from now on: the cheapest route first, less context.")
            yield Condition(Kind.SPEND, f"{status.scope}: {max(reached):g}%", lines=tuple(lines))
        if status.full:
            yield Condition(Kind.CAPPED, status.scope, lines=(str(status),))

    def _gone(self, now: int) -> Iterator[Condition]:
        """Workers whose record ran out without a goodbye. They are forgotten after the quiet time."""
        names = worker_registry.names(self._client)
        records = ask(self._client, [("EXISTS", keyspace.worker(name)) for name in names])
        gone = [name for name, exists in zip(names, records, strict=True) if not exists]
        if back := [name for name, exists in zip(names, records, strict=True) if exists]:
            ask(self._client, [("ZREM", keyspace.GONE, *back)])
        if not gone:
            return
        self._forget_old(gone, now)
        kind = Kind.CRASH_LOOP if len(gone) >= CRASHES else Kind.WORKER_GONE
        line = f"{len(gone)} vanished, {len(names) - len(gone)} alive"
        marks = {f"{name} vanished": "" for name in gone[:FIRST]}
        yield Condition(kind, lines=(line, *marks), marks=marks)

    def _forget_old(self, gone: Sequence[str], now: int) -> None:
        """From RQ's set of workers, once people had the quiet time to read of them."""
        seen = keyspace.GONE
        quiet_ms = int(self._on_call.quiet_minutes * 60_000)
        commands: list[tuple[str | int, ...]] = [("ZADD", seen, "NX", now, name) for name in gone]
        ask(self._client, [*commands, ("EXPIRE", seen, 86_400)])
        (old,) = ask(self._client, [("ZRANGEBYSCORE", seen, "-inf", now - quiet_ms)])
        for name in (entry.decode(errors="replace") for entry in old):
            sets = (keyspace.WORKERS, *(keyspace.workers_of(queue) for queue in self.queues))
            exists = ask(self._client, [("EXISTS", keyspace.worker(name))])[0]
            if not exists:
                ask(self._client, [("SREM", key, keyspace.worker(name)) for key in sets])
            ask(self._client, [("ZREM", seen, name)])


def _readable(source: Callable[[], Iterable[Condition]]) -> list[Condition]:
    """What one source says; nothing when what it reads is broken: that must not silence the others."""
    try:
        return list(source())
    except (ValueError, TypeError, KeyError, AttributeError):
        log.exception("what should be told of cannot be read")
        return []


def _routes(
    usable: Mapping[str, dict[str, Any]],
    standing: Mapping[str, Health],
    held: set[str],
    now: int,
    waiting: Callable[[], int],
) -> Iterator[Condition]:
    """Providers whose routes are open or refused; and whether any route is left. Those that are paused count for neither."""
    stuck = {name: route for name, route in standing.items() if name not in held and _stuck(route)}
    for provider in sorted({canonical(usable[name]["provider"]) for name in stuck}):
        theirs = [route for name, route in stuck.items() if canonical(usable[name]["provider"]) == provider]
        if failing := [route for route in theirs if route.breaker == "open"]:
            yield _of_provider(Kind.ROUTE_OPEN, provider, failing, now)
        if refused := [route for route in theirs if route.rests_for in REFUSED]:
            yield _of_provider(Kind.CREDENTIALS, provider, refused, now)
    rest = [route for name, route in standing.items() if name not in held]
    if rest and len(stuck) == len(rest):
        cold = _of_provider(Kind.COLD, "", rest, now)
        yield replace(cold, lines=(f"{many(waiting(), 'job')} in the queue.", *cold.lines))


def _stuck(route: Health) -> bool:
    rests = route.rests_for in REFUSED or (
        bool(route.rests_for) and (route.reopens_in_seconds or 0) > LONG_REST_SECONDS
    )
    return route.breaker != "closed" or rests


def _of_provider(kind: Kind, provider: str, routes: Sequence[Health], now: int) -> Condition:
    waits = [route.reopens_in_seconds for route in routes if route.reopens_in_seconds]
    said = {route.route: REFUSED.get(route.rests_for or "", "fails") for route in routes}
    return Condition(
        kind,
        provider,
        lines=tuple(f"{name}: {what}" for name, what in said.items()),
        marks={f"{name} {what}": f"{name} answers again" for name, what in said.items()},
        until_ms=now + int(min(waits) * 1000) if waits else None,
    )


def _flags(flags: Sequence[Paused], waiting: Callable[[], int]) -> Iterator[Condition]:
    """One condition for the budget's flags together, and one for each of people; a route that is disabled is no matter of
    urgency, and `failover status` tells of it."""
    budget = [flag for flag in flags if flag.who == BUDGET]
    people = [flag for flag in flags if flag.who != BUDGET and flag.route is None]
    for kind, subject, mine in (
        *([(Kind.BUDGET, "", budget)] if budget else []),
        *((Kind.PAUSED, str(flag.scope), [flag]) for flag in people),
    ):
        ends = [flag.until for flag in mine if flag.until]
        until = int(max(ends) * 1000) if len(ends) == len(mine) else None
        lines = [str(flag) for flag in mine]
        if any(flag.provider is None for flag in mine):
            lines.append(f"{many(waiting(), 'job')} in the queue.")
        marks = {f"paused: {flag}": f"{flag.scope} goes on" for flag in mine}
        yield Condition(kind, subject, lines=tuple(lines), marks=marks, until_ms=until)
