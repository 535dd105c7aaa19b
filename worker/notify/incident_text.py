"""What people read of an incident, for every channel alike: plain text in parts, none of which is ever interpreted.

Every message says what happened, the jobs, the tenants, what happens next and who acts, what to run, and what to tell clients.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from producer.client import DEFAULT_QUEUE
from worker.control.pause import utc
from worker.humanize import clock, counted, lasted, many, one_line
from worker.notify.conditions import FIRST
from worker.notify.incidents import Entry, Incident
from worker.notify.kinds import KIND_INFO, Kind
from worker.notify.oncall import FILE, OnCall

LONGEST_LINE = 600
LINES = 24
OFFERED = 5  # tenants whose command stands in a message
ALL_CLEAR, DEGRADED = "all_clear", "service_degradation"
NOBODY = f"nobody is named for this hour ({FILE})"
SAYS_WHO = (
    Kind.COLD,
    Kind.ROUTE_OPEN,
    Kind.CREDENTIALS,
    Kind.BUDGET,
    Kind.PAUSED,
    Kind.LATE,
)  # its lines name the tenants


@dataclass(frozen=True)
class Message:
    """`headline`: one line. `commands`: to run. `paste`: (who it is for, text) of client messages."""

    headline: str
    lines: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    footer: str = ""
    paste: tuple[tuple[str, str], ...] = ()

    def with_paste(self, paste: tuple[tuple[str, str], ...]) -> Message:
        return replace(self, paste=paste)

    def plain(self) -> str:
        """Everything, for a channel without forms."""
        parts = ["\n".join(self.lines), *(f"    {command}" for command in self.commands)]
        parts += [f"\n{whom}:\n\n{text}\n" for whom, text in self.paste]
        return "\n".join([self.headline, "", *parts, "", self.footer])


def of_incident(incident: Incident, on_call: OnCall, now_ms: int) -> Message:
    """How an incident stands: its opening, and every later edit of it."""
    lore = KIND_INFO[incident.kind]
    if incident.resolved_ms is not None:
        return of_closing(incident, on_call, now_ms)
    mark = "🟡" if lore.notice or incident.fades else "🔴"
    lines = [lore.means, *incident.lines, *_counts(incident), _next(incident)]
    lines += [f"On call: {on_call.now(now_ms) or NOBODY}", *_clients(incident, on_call, now_ms)]
    return _message(f"{mark} {incident.title}", lines, incident)


def of_story(incident: Incident, entries: Sequence[Entry]) -> Message:
    """New lines of the story, for the thread."""
    lines = [f"{clock(entry.at_ms)}  {entry.text}" for entry in entries[-LINES:]]
    if len(entries) > LINES:
        lines.insert(0, f"({len(entries) - LINES} lines before these: failover incidents show {incident.id})")
    return Message(f"{_line(incident.title)}: what happened", tuple(_line(line) for line in lines))


def of_reminder(incident: Incident, on_call: OnCall, now_ms: int) -> Message:
    """That it lasts, or how its counts grew."""
    whole = of_incident(incident, on_call, now_ms)
    headline = f"🔴 Still, for {lasted(incident.seconds(now_ms))}: {_line(incident.title)}"
    return replace(whole, headline=headline)


def of_closing(incident: Incident, on_call: OnCall, now_ms: int) -> Message:
    """That it is over, with length and totals, and what to tell the clients who waited."""
    return _message(_closing(incident, now_ms), [*_counts(incident), *_totals(incident)], incident)


def wanted(incident: Incident) -> list[tuple[str, str]]:
    """(client message, tenant) that this incident calls for now: for the first tenants, and again when it is over."""
    tenants = incident.tenants if incident.resolved_ms is None else {**incident.tenants, **incident.degraded_of}
    named = ((_message_name(incident, tenant), tenant) for tenant in list(tenants)[:OFFERED])
    return [(name, tenant) for name, tenant in named if name]


def _message(headline: str, lines: Iterable[str], incident: Incident) -> Message:
    footer = f"incident {incident.id}, since {utc(incident.opened_ms / 1000)} · runbook.md: {incident.kind}"
    shown = tuple(_line(line) for line in lines if line)[:LINES]
    return Message(_line(headline), shown, tuple(_line(command) for command in _commands(incident)), footer)


def _closing(incident: Incident, now_ms: int) -> str:
    """Green only when nothing is left to do."""
    if incident.kind is Kind.DEAD_LETTERS:
        if incident.left:
            return (
                f"🟡 No new ones, but {incident.left:,} of {incident.dead:,} still wait for somebody: {incident.title}"
            )
        return f"🟢 All are handled: {incident.title}"
    if incident.kind is Kind.DEGRADED:
        return f"🟢 No new ones: {incident.title}"
    return f"🟢 Over after {lasted(incident.seconds(now_ms))}: {incident.title}"


def _counts(incident: Incident) -> Iterator[str]:
    if incident.kind is Kind.DEAD_LETTERS:
        yield f"{many(incident.dead, 'job')}: {counted(incident.reasons)}"
        if incident.example:
            yield f"The first one: {incident.example}"
    if incident.degraded:
        yield f"{many(incident.degraded, 'job')} answered in a reduced form"
    if incident.tenants and incident.kind not in SAYS_WHO:
        yield f"Tenants: {counted(incident.tenants)}"
    if incident.jobs and incident.resolved_ms is None:
        more = f", all: {_all_jobs(incident)}" if max(incident.dead, incident.late) > len(incident.jobs[:FIRST]) else ""
        yield f"Jobs: {' '.join(incident.jobs[:FIRST])}{more}"


def _all_jobs(incident: Incident) -> str:
    queue = _queue_option(incident)
    if incident.kind is Kind.DEAD_LETTERS:
        return f"failover dlq list --limit 10000{queue}"
    return f"failover job late{queue}"


def _totals(incident: Incident) -> Iterator[str]:
    told = []
    if incident.saved:
        told.append(f"{many(incident.saved, 'job')} answered by another route than the first")
    if incident.late:
        told.append(f"{many(incident.late, 'job')} late at worst")
    if incident.dead and incident.kind is not Kind.DEAD_LETTERS:
        told.append(f"{many(incident.dead, 'dead letter')} meanwhile")
    if told:
        yield "; ".join(told) + "."
    if incident.left:
        yield "They are kept until somebody requeues, answers or discards them."
    if incident.late:
        yield f"Clients who waited: {', '.join(list(incident.tenants)[:OFFERED])}"
    if incident.degraded_of and incident.kind is not Kind.DEGRADED:
        yield f"Clients with reduced answers: {', '.join(list(incident.degraded_of)[:OFFERED])}"


def _next(incident: Incident) -> str:
    at = f" at {clock(incident.until_ms)}" if incident.until_ms else ""
    if incident.fades:
        return "Next: nothing to do; it is watched for a while."
    match incident.kind:
        case Kind.COLD | Kind.ROUTE_OPEN | Kind.CREDENTIALS:
            return f"Next: tried again{at or ' when a job comes'}; jobs go on by themselves when it answers."
        case Kind.PAUSED | Kind.BUDGET:
            return f"Next: goes on by itself{at}." if at else "Next: it stays so until somebody resumes."
        case Kind.CAPPED:
            return (
                f"Next: `failover budget set {incident.subject} --hard USD` lets them go on; else the next month does."
            )
        case Kind.DEAD_LETTERS:
            return "Next: nothing happens by itself. Fix the cause, then requeue; or answer them by hand."
        case Kind.LATE:
            return "Next: they are worked on in order; tell the clients."
        case Kind.DEGRADED:
            return "Next: nothing to do. Redo what matters most when all is well."
        case Kind.WORKER_GONE | Kind.CRASH_LOOP:
            return "Next: its jobs run again by themselves; see that as many workers run as should."
        case _:
            return ""


def _clients(incident: Incident, on_call: OnCall, now_ms: int) -> Iterator[str]:
    if not KIND_INFO[incident.kind].message:
        return
    writers: dict[str, list[str]] = {}
    for _, tenant in wanted(incident):
        writers.setdefault(on_call.writes_to(tenant, now_ms) or "somebody", []).append(tenant)
    for writer, tenants in writers.items():
        name = KIND_INFO[incident.kind].message
        yield f"Clients: {writer} writes to {', '.join(tenants)}: the message {name}, filled by the command here."
    if not writers:
        yield "Clients: none of them has to know yet."


def _message_name(incident: Incident, tenant: str) -> str:
    """The client message that fits a tenant now; "" when none does."""
    if incident.resolved_ms is None:
        return KIND_INFO[incident.kind].message
    if incident.kind is Kind.DEGRADED:
        return ""  # they were told while it lasted
    if tenant in incident.degraded_of:
        return DEGRADED
    return ALL_CLEAR if incident.late else ""


def _commands(incident: Incident) -> Iterator[str]:
    if incident.resolved_ms is None or incident.left:
        for command in KIND_INFO[incident.kind].commands:
            has_queue = command.startswith(("failover dlq", "failover job late"))
            scoped = command == "failover resume" and incident.kind is Kind.PAUSED
            yield command + (_queue_option(incident) if has_queue else _scope_option(incident) if scoped else "")
    about = f" --incident {incident.id}"
    for name, tenant in wanted(incident):
        yield f"failover messages show {name} --tenant {shlex.quote(tenant)}{about}"
    if incident.kind is Kind.COLD and incident.resolved_ms is None and not incident.tenants:
        yield f"failover messages show {KIND_INFO[Kind.COLD].message} --tenant NAME{about}"


def _scope_option(incident: Incident) -> str:
    """`--provider openai`, of a pause of that."""
    what, _, name = incident.subject.partition(" ")
    return f" --{what} {shlex.quote(name)}" if what in ("provider", "queue") and name else ""


def _queue_option(incident: Incident) -> str:
    return f" --queue {shlex.quote(incident.queue)}" if incident.queue not in ("", DEFAULT_QUEUE) else ""


def _line(text: str) -> str:
    return one_line(text, LONGEST_LINE)
