"""Conditions: the problems that exist now. They are read from Redis each time, so nothing has to be remembered."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import redis

from producer import keyspace
from producer.client import DEFAULT_QUEUE
from producer.keyspace import JobField
from producer.redis_server.memory import FULL_PERCENT, Memory
from producer.scripts import although_full, ask
from worker.breakers import health
from worker.control import worker_registry
from worker.control.pause import BUDGET, EVERYTHING, RQ, Paused, paused
from worker.humanize import counted, lasted, many
from worker.money import billing_alerts, budget_state
from worker.money.billing_alerts import ProviderSpend
from worker.money.budget_state import CapStatus
from worker.notify.condition import FIRST, Condition, Snapshot, late_size, waiting_size
from worker.notify.kinds import Kind
from worker.notify.objectives.conditions import of_findings
from worker.notify.oncall import OnCall
from worker.notify.provider_conditions import of_routes
from worker.notify.queue_conditions import floods, without_workers
from worker.objectives.policy import Follow
from worker.objectives.watch import Finding
from worker.queue import fair_queue, lost
from worker.queue.dead_letters import now_ms
from worker.routes.names import canonical

log = logging.getLogger("failover.worker")

LATE_EVERY_MS = 2000  # between two reads of late jobs and floods: thousands of jobs take milliseconds
LATE_READ = 2000  # late jobs whose tenants are counted
USERS_LISTED = 5  # with more users over an alert threshold, one condition covers all of them
MEMORY_STEPS = (80, 90, FULL_PERCENT)  # percent of maxmemory; the first opens the incident
CRASHES = 3  # so many vanished workers are a crash loop


class ConditionReader:
    """Reads the conditions from Redis. `dangers`, `memory`, `findings`: the last safety check of Redis, how full it is, and the
    targets of policies/slo.yaml that are missed, read by notifier.py; `follow`: what follows them."""

    def __init__(self, client: redis.Redis, on_call: OnCall, alert_thresholds: Sequence[float]) -> None:
        self._client, self._on_call, self._alert_thresholds = client, on_call, alert_thresholds
        self.queues: list[str] = [DEFAULT_QUEUE]
        self.routes: tuple[str, ...] = ()  # of all workers
        self._late_at, self._late_found = -LATE_EVERY_MS, tuple[Condition, ...]()
        self._overdue = 0
        self.dangers: tuple[str, ...] = ()
        self.memory: Memory | None = None
        self.findings: tuple[Finding, ...] = ()
        self.follow = Follow()

    def read(self) -> Snapshot:
        """All conditions now. A source that cannot be read is logged and left out."""
        client, now = self._client, now_ms(self._client)
        self.queues = worker_registry.queues(client, DEFAULT_QUEUE)
        flags = paused(client, self.queues)
        views = worker_registry.views(client)
        usable = worker_registry.usable(views)
        self.routes = tuple(usable)
        standing = health.of_routes(client, list(usable))
        paused_routes = worker_registry.withheld(usable, flags)
        sources = (
            lambda: of_routes(usable, standing, paused_routes, lambda: self._waiting(())),
            lambda: _pauses(flags, lambda: self._waiting(flags), lambda: billing_alerts.known(client)),
            self._budgets,
            lambda: self._queue_conditions(now),
            lambda: () if views else without_workers(0, self._waiting(())),
            lambda: self._vanished(now),
            self._lost,
            lambda: of_findings(self.findings, self.follow),
        )
        conditions = [condition for source in sources for condition in _readable(source)]
        if self.dangers:
            conditions.append(Condition(Kind.REDIS_UNSAFE, lines=self.dangers, marks=dict.fromkeys(self.dangers, "")))
        conditions += _memory(self.memory)
        succeeded: dict[str, int] = {}
        for name, route in usable.items():
            provider = canonical(route["provider"])
            succeeded[provider] = max(succeeded.get(provider, 0), standing[name].succeeded_ms)
        half_open = {canonical(usable[name]["provider"]) for name in usable if standing[name].breaker == "half-open"}
        return Snapshot(
            now, tuple(conditions), succeeded, frozenset(half_open), tuple(self.queues), len(views), self._overdue
        )

    def _waiting(self, flags: Sequence[Paused]) -> int:
        """Jobs that wait in the queues that `flags` pause; without flags, jobs of all queues without an answer: the one that
        probes a route is back in a moment."""
        names = [name for name in self.queues if not flags or any(flag.concerns(name) for flag in flags)]
        queued = ask(self._client, [fair_queue.length_call(name) for name in names])
        keys = [keyspace.scheduled(name) for name in names] + [keyspace.leases(name) for name in names if not flags]
        counts = ask(self._client, [("ZCARD", key) for key in keys])
        return sum(int(length) for length, _ in queued) + sum(map(int, counts))

    def _queue_conditions(self, now: int) -> tuple[Condition, ...]:
        """The late jobs and the floods, read at most every LATE_EVERY_MS."""
        if not 0 <= now - self._late_at < LATE_EVERY_MS:
            self._late_at = now
            counts = [("ZCOUNT", keyspace.promised(queue), "-inf", now) for queue in self.queues]
            self._overdue = sum(ask(self._client, counts))
            late = [found for queue in self.queues if (found := self._late(queue, now)).late]
            self._late_found = (*late, *floods(self._client, self.queues, self._on_call))
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
        size = late_size(count, tenants)
        return Condition(
            Kind.LATE, "", queue, size=size, lines=(line,), marks=marks, tenants=tenants, late=count,
            jobs=tuple(names[:FIRST]),
        )  # fmt: skip

    def _budgets(self) -> Iterator[Condition]:
        cap_statuses = list(budget_state.standing(self._client).cap_statuses.values())
        users = [status for status in cap_statuses if status.scope.startswith("user:")]
        others = [status for status in cap_statuses if not status.scope.startswith("user:")]
        for status in cap_statuses if len(users) <= USERS_LISTED else others:
            yield from self._cap_status(status)
        if len(users) > USERS_LISTED:
            lines = (
                f"{len(users)} users have reached an alert threshold: `failover budget show --by user`",
                *map(str, users[:FIRST]),
            )
            yield Condition(Kind.SPEND, "users", lines=lines)
        for known in billing_alerts.known(self._client):
            reached = [step for step in self._alert_thresholds if known.percent >= step]
            if reached and known.budget != billing_alerts.OWN_NAME:
                subject = f"{known}: {max(reached):g}%"
                steps = ", ".join(f"{step:g}" for step in self._alert_thresholds)
                line = f"{known} has used {known.percent:.4g}% of its budget. A message is sent at {steps}%."
                yield Condition(Kind.SPEND, subject, lines=(line,))

    def _cap_status(self, status: CapStatus) -> Iterator[Condition]:
        if reached := [step for step in self._alert_thresholds if status.step >= step]:
            lines = [str(status)]
            if reached[-1] == self._alert_thresholds[-1]:
                lines.append("Cost saving is on for its jobs: the cheapest route first, less context.")
            yield Condition(Kind.SPEND, f"{status.scope}: {max(reached):g}%", lines=tuple(lines))
        if status.full:
            marks = {f"the budget of {status.scope} is used up": f"{status.scope} may spend again"}
            yield Condition(Kind.CAPPED, status.scope, lines=(str(status),), marks=marks)

    def _lost(self) -> Iterator[Condition]:
        """Jobs that left the queue without an outcome, until a person takes them off the list."""
        if total := lost.count(self._client):
            few = lost.some(self._client, FIRST)
            lines = tuple(f"{each.job_id}: {each.why}" for each in few)
            size = many(total, "job")
            yield Condition(
                Kind.LOST,
                size=size,
                lines=(f"{size} without an outcome", *lines),
                jobs=tuple(each.job_id for each in few),
            )

    def _vanished(self, now: int) -> Iterator[Condition]:
        """Workers whose record expired although they did not shut down. After `quiet_minutes` they are forgotten."""
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
        yield Condition(kind, size=line, lines=(line, *marks), marks=marks)

    def _forget_old(self, gone: Sequence[str], now: int) -> None:
        """Remove vanished workers from RQ's sets, after people had `quiet_minutes` to read about them."""
        seen = keyspace.GONE
        quiet_ms = int(self._on_call.quiet_minutes * 60_000)
        commands: list[tuple[str | int, ...]] = [("ZADD", seen, "NX", now, name) for name in gone]
        ask(self._client, [although_full(*commands, ("EXPIRE", seen, 86_400))])
        (old,) = ask(self._client, [("ZRANGEBYSCORE", seen, "-inf", now - quiet_ms)])
        for name in (entry.decode(errors="replace") for entry in old):
            sets = (keyspace.WORKERS, *(keyspace.workers_of(queue) for queue in self.queues))
            exists = ask(self._client, [("EXISTS", keyspace.worker(name))])[0]
            if not exists:
                ask(self._client, [("SREM", key, keyspace.worker(name)) for key in sets])
            ask(self._client, [("ZREM", seen, name)])


def memory_steps(memory: Memory | None) -> tuple[int, ...]:
    """The steps that Redis has reached, in percent of its maxmemory."""
    return tuple(step for step in MEMORY_STEPS if memory and memory.percent >= step)


def _memory(memory: Memory | None) -> Iterator[Condition]:
    """Redis is nearly full. Each step that it reached is a mark, so that the title names the last one."""
    reached = memory_steps(memory)
    if memory and reached:
        lines = [f"At {memory.percent}% of its memory."]
        if memory.is_full:
            lines.append(
                "No new job is accepted (HTTP 503). If a client asks, the last command has the text: replace NAME."
            )
        marks = {
            f"{step}% or more of its memory is used": f"less than {step}% of its memory is used" for step in reached
        }
        title = "Redis is full: no new job is accepted" if memory.is_full else ""
        commands = ("failover messages show no_new_jobs --tenant NAME",) if memory.is_full else ()
        size = tuple(marks)[-1]
        yield Condition(Kind.REDIS_FULL, title=title, size=size, lines=tuple(lines), marks=marks, commands=commands)


def _readable(source: Callable[[], Iterable[Condition]]) -> list[Condition]:
    """The conditions of one source; none if its data is broken, so that the other sources still work."""
    try:
        return list(source())
    except (ValueError, TypeError, KeyError, AttributeError):
        log.exception("a condition cannot be read")
        return []


def _pauses(
    flags: Sequence[Paused], waiting: Callable[[], int], spends: Callable[[], list[ProviderSpend]]
) -> Iterator[Condition]:
    """One condition for all pauses of the budget, and one for each pause of a person. A disabled route is not urgent, so it
    is no condition; `failover status` shows it."""
    budget = [flag for flag in flags if flag.who == BUDGET]
    people = [flag for flag in flags if flag.who != BUDGET and flag.route is None]
    for kind, subject, mine in (
        *([(Kind.BUDGET, "", budget)] if budget else []),
        *((Kind.PAUSED, str(flag.scope), [flag]) for flag in people),
    ):
        ends = [flag.until for flag in mine if flag.until]
        until = int(max(ends) * 1000) if len(ends) == len(mine) else None
        lines = [str(flag) for flag in mine]
        size = ""
        if any(flag.provider is None and flag.tenant is None for flag in mine):
            jobs = waiting()
            size = waiting_size(jobs)
            lines.append(f"{many(jobs, 'job')} in the queue.")
        marks = {f"paused: {flag}": f"{flag.scope} goes on" for flag in mine}
        commands = tuple(_resumes(mine, spends() if kind is Kind.BUDGET else []))
        yield Condition(kind, subject, size=size, lines=tuple(lines), marks=marks, until_ms=until, commands=commands)


def _resumes(flags: Sequence[Paused], spends: Sequence[ProviderSpend]) -> Iterator[str]:
    """The commands that end these pauses. With `spends`, the budget that paused pauses again at a share that it has not
    reached yet. The end of a budget's pause of everything ends its other pauses, too."""
    for flag in [flag for flag in flags if flag.scope == EVERYTHING] or flags:
        if flag.who == RQ:
            yield 'rq resume --url "$REDIS_URL"'
            continue
        used = [each.percent for each in spends if flag.provider in (None, each.provider)]
        again = f" --pause-again-at {billing_alerts.share_above(*used)}" if used else ""
        yield f"failover resume{flag.scope.option} --dry-run"
        yield f"failover resume{flag.scope.option}{again}"
