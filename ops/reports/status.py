"""`failover status`: what is paused, queued, running, waiting and dead; routes and workers. It changes nothing."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import redis
from redis.exceptions import ResponseError
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ops.reports.batches import BatchStatus, under_way
from producer import keyspace
from producer.keyspace import JobField
from producer.redis_server.errors import fix_of_refusal
from producer.redis_server.memory import FULL_PERCENT, memory
from producer.scripts import Command, ask
from worker.breakers import health
from worker.breakers.health import Health
from worker.control import worker_registry
from worker.control.pause import Paused, paused, utc
from worker.humanize import many
from worker.money import billing_alerts, budget_state
from worker.money.billing_alerts import ProviderSpend
from worker.notify.conditions import MEMORY_STEPS
from worker.notify.incidents import Incidents
from worker.notify.kinds import Kind
from worker.queue import fair_queue, lost

SCOPES_LISTED = 10


@dataclass(frozen=True)
class QueueStatus:
    """One queue; ages in seconds."""

    queue: str
    queued: int
    oldest_seconds: float | None
    in_flight: int
    waiting: int  # scheduled: retried later, or parked until a route can be used
    next_due_seconds: float | None
    late: int  # past the promised time to answer
    dead: int
    done: int


@dataclass(frozen=True)
class WorkerStatus:
    worker: str
    state: str
    queues: str
    done: int
    dead: int
    seen_seconds: float | None  # since its last heartbeat


@dataclass(frozen=True)
class RouteStatus:
    """A route of a worker's map. `left_out`: why it cannot be used; then it has no `health`."""

    route: str
    tier: str
    left_out: str | None
    health: Health | None
    closed: str = ""  # by operators: its provider is paused, or the route is disabled


@dataclass(frozen=True)
class Status:
    paused: list[Paused]
    queues: list[QueueStatus]
    workers: list[WorkerStatus]
    budgets: list[ProviderSpend] = field(default_factory=list)
    caps: list[str] = field(default_factory=list)  # scopes that have reached an alert threshold, in words
    reduced: str | None = None  # why cost saving is on for every job
    incidents: list[str] = field(default_factory=list)  # the open ones, in words
    routes: list[RouteStatus] = field(default_factory=list)
    mute: list[str] = field(default_factory=list)  # channels that accept no messages, in words
    memory_percent: int | None = None  # of Redis's maxmemory; None: it has no limit
    batches: list[BatchStatus] = field(default_factory=list)  # under way
    lost: int = 0  # jobs that left the queue without an outcome
    odd: list[str] = field(default_factory=list)  # unusual configuration that workers report
    failing: list[str] = field(default_factory=list)  # what a worker cannot read or write, since when, and the fix

    @property
    def waiting(self) -> int:
        """Jobs of all queues that are queued, or scheduled for later."""
        return sum(queue.queued + queue.waiting for queue in self.queues)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def gather(client: redis.Redis, default_queue: str) -> Status:
    """Read the whole status in a few round trips."""
    queues = worker_registry.queues(client, default_queue)
    flags = paused(client, queues)
    standing, unreadable = _standing(client)
    used = memory(client)
    views = worker_registry.views(client)
    return Status(
        paused=flags,
        caps=[str(status) for status in standing.cap_statuses.values()],
        reduced=standing.reduced or None,
        queues=[_queue(client, name) for name in queues],
        workers=_workers(client, worker_registry.names(client)),
        budgets=[each for each in billing_alerts.known(client) if each.budget != billing_alerts.OWN_NAME],
        incidents=_incidents(client),
        routes=_routes(client, views, flags),
        batches=under_way(client),
        lost=lost.count(client),
        memory_percent=used.percent if used else None,
        odd=[
            *dict.fromkeys(text for view in views for text in view.get("told", ())),
            *(text for name in queues for text in worker_registry.strangers(client, name)),
        ],
        failing=unreadable + [f"{view['worker']}: {text}" for view in views for text in view.get("failing", ())],
        mute=[
            f"{channel} accepts no messages since {utc(since / 1000)}: {why}"
            for channel, (why, since) in Incidents(client).troubles().items()
        ],
    )


def _standing(client: redis.Redis) -> tuple[budget_state.Standing, list[str]]:
    """The budget state; and why it cannot be read, if another tool wrote its keys."""
    try:
        return budget_state.standing(client), []
    except ResponseError as error:
        return budget_state.NOTHING, [
            f"`failover status` cannot read the budgets: {error} — {fix_of_refusal(str(error))}"
        ]


def _queue(client: redis.Redis, name: str) -> QueueStatus:
    commands: list[Command] = [
        fair_queue.length_call(name),
        ("ZCARD", keyspace.leases(name)),
        ("ZCARD", keyspace.scheduled(name)),
        ("ZRANGE", keyspace.scheduled(name), 0, 0, "WITHSCORES"),
        ("ZCOUNT", keyspace.promised(name), "-inf", int(time.time() * 1000)),
        ("ZCARD", keyspace.failed(name)),
        ("ZCARD", keyspace.finished(name)),
    ]
    (queued, head), in_flight, waiting, due, late, dead, done = ask(client, commands)
    accepted = client.hget(keyspace.job(head.decode()), JobField.ACCEPTED) if head else None
    now = time.time()
    return QueueStatus(
        queue=name,
        queued=queued,
        oldest_seconds=max(0.0, now - float(accepted) / 1000) if accepted else None,
        in_flight=in_flight,
        waiting=waiting,
        next_due_seconds=max(0.0, float(due[0][1]) - now) if due else None,
        late=late,
        dead=dead,
        done=done,
    )


def _workers(client: redis.Redis, names: list[str]) -> list[WorkerStatus]:
    fields = ("state", "queues", "successful_job_count", "failed_job_count", "last_heartbeat")
    replies = ask(client, [("HMGET", keyspace.worker(name), *fields) for name in names])
    found = []
    for name, reply in zip(names, replies, strict=True):
        state, queues, done, dead, beat = reply
        if queues is not None:  # the record of a dead worker may have no hash any more
            found.append(
                WorkerStatus(
                    name, (state or b"?").decode(), queues.decode(), int(done or 0), int(dead or 0), _since(beat)
                )
            )
    return found


def _since(heartbeat: bytes | None) -> float | None:
    """Seconds since a timestamp of RQ."""
    if heartbeat is None:
        return None
    then = datetime.strptime(heartbeat.decode(), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - then).total_seconds())


def _routes(client: redis.Redis, views: list[dict[str, Any]], flags: list[Paused]) -> list[RouteStatus]:
    """The routes of all workers' maps, with their shared state."""
    seen: dict[str, dict[str, Any]] = {}
    for view in views:
        for route in view["routes"]:
            seen.setdefault(route["route"], route)
    standing = health.of_routes(client, [name for name, route in seen.items() if "left_out" not in route])
    return [
        RouteStatus(
            name,
            route["tier"],
            route.get("left_out"),
            standing.get(name),
            next((_closed(flag) for flag in flags if flag.closes(name, route.get("provider", ""))), ""),
        )
        # hot before warm, else in the order of the map
        for name, route in sorted(seen.items(), key=lambda item: item[1]["tier"])
    ]


def _incidents(client: redis.Redis) -> list[str]:
    opened = [each for each in Incidents(client).unsettled() if each.is_open and each.kind is not Kind.CAPPED]
    seen = "" if not opened or client.exists(keyspace.NOTIFIER) else " (as last seen: no worker runs to notice its end)"
    return [f"incident {each.id}, since {utc(each.opened_ms / 1000)}: {each.title}{seen}" for each in opened]


def _closed(flag: Paused) -> str:
    return "disabled" if flag.route is not None else "its provider is paused"


def render(status: Status, console: Console) -> None:
    """Print the status, the pauses first."""
    _render_problems(status, console)
    if status.memory_percent is not None:
        style = "bold red" if status.memory_percent >= MEMORY_STEPS[0] else "bold"
        console.print(
            f"[{style}]MEMORY[/] {status.memory_percent}% of Redis's is used; at {FULL_PERCENT}% no job is accepted"
        )
    if status.lost:
        console.print(f"[bold red]LOST[/] {many(status.lost, 'job')} without an outcome: `failover dlq list --lost`")
    _render_work(status, console)


def _render_problems(status: Status, console: Console) -> None:
    for flag in status.paused:
        word = "PAUSED" if flag.route is None else "DISABLED"
        console.print(f"[bold red]{word}[/]: {escape(str(flag))}")
    if all(flag.route is not None for flag in status.paused):
        console.print("not paused")
    if status.reduced:
        console.print(f"[bold]COST SAVING[/] {escape(status.reduced)}; `failover budget reduce --end` ends it")
    for cap in status.caps[:SCOPES_LISTED]:
        console.print(f"[bold]BUDGET[/] {escape(cap)}")
    if len(status.caps) > SCOPES_LISTED:
        console.print(f"[bold]BUDGET[/] and {len(status.caps) - SCOPES_LISTED} more: `failover budget show`")
    labelled = (("bold red", "CONFIGURATION", status.odd), ("bold red", "FAILING", status.failing))
    for style, label, texts in (*labelled, ("bold", "OPEN", status.incidents)):
        for text in texts:
            console.print(f"[{style}]{label}[/] {escape(text)}")
    for channel in status.mute:
        console.print(f"[bold]MUTE[/] {escape(channel)}; `failover notify test` names the fix")
    for budget in status.budgets:
        at = utc(budget.at)
        console.print(
            f"budget of {escape(str(budget))}: {budget.percent:.4g}% used, reported by {escape(budget.who)} at {at}"
        )


def _render_work(status: Status, console: Console) -> None:
    queues = Table("queue", "queued", "oldest", "in flight", "waiting", "next due", "late", "dead", "done", box=None)
    for queue in status.queues:
        numbers = (queue.in_flight, queue.waiting)
        queues.add_row(
            queue.queue, str(queue.queued), _age(queue.oldest_seconds), *map(str, numbers),
            _age(queue.next_due_seconds), str(queue.late), str(queue.dead), str(queue.done),
        )  # fmt: skip
    console.print(queues)
    for batch in status.batches:
        console.print(f"batch {escape(str(batch))}")
    workers = Table("worker", "state", "seen", "queues", "done", "dead", box=None)
    for worker in status.workers:
        counts = (str(worker.done), str(worker.dead))
        workers.add_row(worker.worker, worker.state, _age(worker.seen_seconds), worker.queues, *counts)
    nobody = "no worker is running: start `failover-worker`, or on a laptop `failover up`"
    console.print(workers if status.workers else nobody)
    if status.routes:
        console.print(_routes_table(status.routes))


def _routes_table(routes: list[RouteStatus]) -> Table:
    table = Table(Column("route", no_wrap=True), "tier", "breaker", "last 20", "errors", "p50", "p95", box=None)
    for route in routes:
        if route.health is None:
            table.add_row(escape(route.route), route.tier, "left out", escape(route.left_out or "-"))
            continue
        known = route.health
        cooldown = known.rests_for and known.breaker == "closed"
        state = route.closed or (f"cooldown: {known.rests_for}" if cooldown else known.breaker)
        wait = f", reopens in {known.reopens_in_seconds:.0f} s" if known.reopens_in_seconds else ""
        marks = "".join("+" if good else "-" for good in known.last)
        errors = "-" if known.error_rate is None else f"{known.error_rate:.0%}"
        latencies = ("-" if ms is None else f"{ms} ms" for ms in (known.p50_ms, known.p95_ms))
        table.add_row(escape(route.route), route.tier, state + wait, marks or "no calls yet", errors, *latencies)
    return table


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
