"""The text of incident messages, the same for every channel: plain text, which no channel may interpret.

Every message says what happened, which jobs and tenants are affected, what happens next, who is on call, which commands
help, and what to send to clients.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from producer.client import DEFAULT_QUEUE
from worker.control.pause import utc
from worker.humanize import clock, counted, lasted, many, one_line
from worker.notify.condition import FIRST
from worker.notify.incidents import Entry, Incident
from worker.notify.kinds import KIND_INFO, Kind
from worker.notify.oncall import FILE, OnCall

LONGEST_LINE = 600
LINES = 24
DAY_MS = 86_400_000  # a time that is further away is shown with its date
OFFERED = 5  # tenants for whom a message names the command
ALL_CLEAR, DEGRADED, NEW_JOBS_AGAIN = "all_clear", "service_degradation", "new_jobs_again"
REPEATED = "sent for the second time: nobody knows whether the first arrived"
NOBODY = f"nobody is on call at this hour ({FILE})"
NOBODY_SERVED = (Kind.COLD, Kind.REFUSED, Kind.NO_WORKERS)
NAMES_TENANTS = (  # the lines of these kinds name the tenants already
    Kind.NO_WORKERS,
    Kind.COLD,
    Kind.REFUSED,
    Kind.ROUTE_OPEN,
    Kind.CREDENTIALS,
    Kind.BUDGET,
    Kind.PAUSED,
    Kind.LATE,
)
_NEXT = {  # of the kinds whose next step is always the same
    Kind.DEAD_LETTERS: "Next: nothing happens automatically. Fix the cause, then requeue them; or answer them by hand.",
    Kind.LATE: "Next: they are processed in order. Write to the clients.",
    Kind.FLOOD: "Next: they are executed and paid, in turn with the jobs of other clients, until somebody stops them.",
    Kind.DEGRADED: "Next: nothing to do. Redo the most important answers after the outage.",
    Kind.REDIS_FULL: "Next: give Redis more memory at its provider. Results that expire free some by themselves.",
    Kind.REDIS_UNWRITABLE: "Next: nothing happens until its disk has room: free some, or use a larger disk, at its provider.",
    Kind.LOST: "Next: nothing happens automatically. Hand the jobs in again, then take them off the list.",
    Kind.NO_WORKERS: "Next: nothing happens until a worker runs. Start one; runbook.md says where.",
    Kind.WORKER_GONE: "Next: the workers that still run take over its jobs. If none runs, start one; runbook.md says where.",
    Kind.CRASH_LOOP: "Next: the workers that still run take over its jobs. If none runs, start one; runbook.md says where.",
    Kind.SLO_SUCCESS: "Next: other routes answer where they can. End the cause: if one route fails, take it out.",
    Kind.SLO_LATENCY: "Next: take out the slow route; or start more workers, if jobs wait in the queue.",
    Kind.SLO_COST: "Next: it costs more until somebody acts. The second command makes all jobs cheaper.",
    Kind.SLO_BURN: "Next: change no route and no prompt until it is over. End the cause: if one route fails, take it out.",
    Kind.SLO_BUDGET: "Next: use cheaper models and prompt caching, and review prompts and context.",
}


@dataclass(frozen=True)
class Message:
    """One message. `headline`: one line. `commands`: shell commands that help. `paste`: (recipient, text) of client
    messages."""

    headline: str
    lines: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    footer: str = ""
    paste: tuple[tuple[str, str], ...] = ()

    def with_paste(self, paste: tuple[tuple[str, str], ...]) -> Message:
        return replace(self, paste=paste)

    def repeated(self) -> Message:
        """The same for a channel that may have it already."""
        return replace(self, footer=f"{self.footer} · {REPEATED}")

    def plain(self) -> str:
        """The whole message as text, for channels without formatting."""
        parts = ["\n".join(self.lines), *(f"    {command}" for command in self.commands)]
        parts += [f"\n{whom}:\n\n{text}\n" for whom, text in self.paste]
        return "\n".join([self.headline, "", *parts, "", self.footer])


def of_incident(incident: Incident, on_call: OnCall, now_ms: int) -> Message:
    """The current state of an incident: the text of the opening and of its edits."""
    info = KIND_INFO[incident.kind]
    if incident.resolved_ms is not None:
        return of_closing(incident, on_call, now_ms)
    mark = "🟡" if info.notice or incident.fades else "🔴"
    means = [] if incident.fades else [info.means]  # no longer so
    lines = [*means, *incident.lines, *_counts(incident), _next(incident, now_ms)]
    lines += [f"On call: {on_call.now(now_ms) or NOBODY}", *_clients(incident, on_call, now_ms)]
    over = "Seems to be over: " if incident.fades else ""
    return _message(f"{mark} {over}{incident.title}", lines, incident)


def of_story(incident: Incident, entries: Sequence[Entry]) -> Message:
    """New entries of the story, for the thread."""
    lines = [f"{clock(entry.at_ms)}  {entry.text}" for entry in entries[-LINES:]]
    if len(entries) > LINES:
        lines.insert(0, f"({len(entries) - LINES} earlier lines: failover incidents show {incident.id})")
    return Message(f"{_line(incident.title)}: what happened", tuple(_line(line) for line in lines))


def of_reminder(incident: Incident, on_call: OnCall, now_ms: int) -> Message:
    """A reminder that the incident is still open, or that its counts grew."""
    whole = of_incident(incident, on_call, now_ms)
    headline = f"🔴 Still open after {lasted(incident.seconds(now_ms))}: {_line(incident.title)}"
    return replace(whole, headline=headline)


def of_closing(incident: Incident, on_call: OnCall, now_ms: int) -> Message:
    """The end of an incident: its duration, its totals, and the messages for clients who waited."""
    return _message(_closing(incident, now_ms), [*_counts(incident), *_totals(incident)], incident)


def wanted(incident: Incident) -> list[tuple[str, str]]:
    """(client message, tenant) pairs to send now: for the first OFFERED tenants, during the incident and after its end.

    None in between, while it fades: that work is held up is no longer true, and that it is over is not yet known.
    """
    if incident.fades:
        return []
    tenants = incident.tenants if incident.resolved_ms is None else {**incident.tenants, **incident.degraded_of}
    named = ((_message_name(incident, tenant), tenant) for tenant in list(tenants)[:OFFERED])
    return [(name, tenant) for name, tenant in named if name]


def _message(headline: str, lines: Iterable[str], incident: Incident) -> Message:
    footer = f"incident {incident.id}, since {utc(incident.opened_ms / 1000)} · runbook.md: {incident.kind}"
    shown = tuple(_line(line) for line in lines if line)[:LINES]
    return Message(_line(headline), shown, tuple(_line(command) for command in _commands(incident)), footer)


def _closing(incident: Incident, now_ms: int) -> str:
    """The headline at the end; green only when nothing is left to do."""
    if incident.kind is Kind.DEAD_LETTERS:
        if incident.left:
            return f"🟡 No new ones, but {incident.left:,} of {incident.dead:,} still need a person: {incident.title}"
        return f"🟢 All are handled: {incident.title}"
    if incident.kind is Kind.DEGRADED:
        return f"🟢 No new ones: {incident.title}"
    return f"🟢 Over after {lasted(incident.seconds(now_ms))}: {incident.title}"


def _counts(incident: Incident) -> Iterator[str]:
    if incident.kind is Kind.DEAD_LETTERS:
        yield f"{many(incident.dead, 'job')}: {counted(incident.reasons)}"
        if incident.again:
            yield f"After a requeue they died again: {many(incident.again, 'time')}"
        if incident.example:
            yield f"The first one: {incident.example}"
    if incident.degraded:
        yield f"{many(incident.degraded, 'job')} answered in a reduced form"
    if incident.tenants and incident.kind not in NAMES_TENANTS:
        yield f"Tenants: {counted(incident.tenants)}"
    if incident.jobs and incident.resolved_ms is None and not incident.fades:
        more = f", all: {_all_jobs(incident)}" if max(incident.dead, incident.late) > len(incident.jobs[:FIRST]) else ""
        yield f"Jobs: {' '.join(incident.jobs[:FIRST])}{more}"


def _all_jobs(incident: Incident) -> str:
    queue = _queue_option(incident)
    if incident.kind is Kind.DEAD_LETTERS:
        return f"failover dlq list --limit 10000{queue}"
    return f"failover job late --limit 10000{queue}"


def _totals(incident: Incident) -> Iterator[str]:
    totals = []
    if incident.saved:
        totals.append(f"{many(incident.saved, 'job')} answered by another route than the first")
    if incident.late:
        totals.append(f"{many(incident.late, 'job')} late at the worst time")
    if incident.dead and incident.kind is not Kind.DEAD_LETTERS:
        totals.append(f"{many(incident.dead, 'dead letter')} during the incident")
    if totals:
        yield "; ".join(totals) + "."
    if incident.left:
        yield "They are kept until somebody requeues, resolves or discards them."
    if incident.kind is Kind.REDIS_FULL:
        yield "If clients were told that no new job is accepted: the command has the text for them. Replace NAME."
    if incident.late:
        yield f"Clients who waited: {', '.join(list(incident.tenants)[:OFFERED])}"
    if incident.degraded_of and incident.kind is not Kind.DEGRADED:
        yield f"Clients with reduced answers: {', '.join(list(incident.degraded_of)[:OFFERED])}"


def _next(incident: Incident, now_ms: int) -> str:
    """What happens next. A time that is past is not shown: the probe comes with the next job, the pause ends now."""
    until_ms = incident.until_ms or 0
    at = f" at {clock(until_ms) if until_ms - now_ms < DAY_MS else utc(until_ms / 1000)}" if until_ms > now_ms else ""
    if incident.fades:
        return "Next: nothing to do. It closes when the problem stays away."
    match incident.kind:
        case Kind.REFUSED | Kind.CREDENTIALS:
            return f"Next: somebody fixes it. Then jobs continue automatically with a probe{at or ', which the next job makes'}."
        case Kind.COLD | Kind.ROUTE_OPEN:
            return f"Next: a probe{at or ' with the next job'}; jobs continue automatically when it is answered."
        case Kind.PAUSED | Kind.BUDGET:
            ends = f"resumes automatically{at or ' now'}." if until_ms else "stays paused until somebody resumes it."
            return f"Next: {ends}"
        case Kind.CAPPED:
            return f"Next: `failover budget set {incident.subject} --hard USD` starts them; otherwise they start next month."
        case _:
            return _NEXT.get(incident.kind, "")


def _clients(incident: Incident, on_call: OnCall, now_ms: int) -> Iterator[str]:
    if not KIND_INFO[incident.kind].message:
        return
    writers: dict[str, list[str]] = {}
    for _, tenant in wanted(incident):
        writers.setdefault(on_call.writes_to(tenant, now_ms) or "somebody", []).append(tenant)
    for writer, tenants in writers.items():
        name = KIND_INFO[incident.kind].message
        yield f"Clients: {writer} writes to {', '.join(tenants)}: message {name}, filled by the command below."
    if incident.fades and incident.tenants:
        yield f"Clients: write nothing now. When this closes, its message has the text for {', '.join(incident.tenants)}."
    elif not writers:
        asked = " If one asks, the last command has the text: replace NAME." if _for_whoever_asks(incident) else ""
        yield f"Clients: no message is needed yet.{asked}"


def _for_whoever_asks(incident: Incident) -> bool:
    """Whether the message has a command for clients that it cannot name: no job is answered, but none is late yet."""
    return incident.kind in NOBODY_SERVED and incident.resolved_ms is None and not incident.tenants


def _message_name(incident: Incident, tenant: str) -> str:
    """The name of the client message for a tenant now; "" when none is needed."""
    if incident.resolved_ms is None:
        return KIND_INFO[incident.kind].message
    if incident.kind is Kind.DEGRADED:
        return ""  # the clients got their message during the incident
    if tenant in incident.degraded_of:
        return DEGRADED
    return ALL_CLEAR if incident.late else ""


def _commands(incident: Incident) -> Iterator[str]:
    if incident.resolved_ms is None or incident.left:
        for command in KIND_INFO[incident.kind].commands:
            has_queue = command.startswith(("failover dlq", "failover job late"))
            yield command + (_queue_option(incident) if has_queue else "")
        yield from incident.commands
    about = f" --incident {incident.id}"
    for name, tenant in wanted(incident):
        yield f"failover messages show {name} --tenant {shlex.quote(tenant)}{about}"
    if incident.kind is Kind.REDIS_FULL and incident.resolved_ms is not None:
        yield f"failover messages show {NEW_JOBS_AGAIN} --tenant NAME"
    if _for_whoever_asks(incident):
        yield f"failover messages show {KIND_INFO[incident.kind].message} --tenant NAME{about}"


def _queue_option(incident: Incident) -> str:
    return f" --queue {shlex.quote(incident.queue)}" if incident.queue not in ("", DEFAULT_QUEUE) else ""


def _line(text: str) -> str:
    return one_line(text, LONGEST_LINE)
