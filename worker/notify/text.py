"""What people read of an incident, for every channel alike: plain text in parts, none of which is ever interpreted.

Every message says what happened, the jobs, the tenants, what happens next and who acts, what to run, and what to tell clients.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from producer.client import DEFAULT_QUEUE
from worker.notify.incidents import Entry, Incident
from worker.notify.kinds import LORE, Kind
from worker.notify.oncall import OnCall
from worker.notify.watch import FIRST, clock, counted
from worker.pause import utc

LONGEST_LINE = 600
LINES = 24
OFFERED = 5  # tenants whose command stands in a message
ALL_CLEAR = "all_clear"


@dataclass(frozen=True)
class Message:
    """`headline`: one line. `commands`: to run. `paste`: (who it is for, text) of client messages."""

    headline: str
    lines: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    footer: str = ""
    paste: tuple[tuple[str, str], ...] = ()

    def plain(self) -> str:
        """Everything, for a channel without forms."""
        parts = ["\n".join(self.lines), *(f"    {command}" for command in self.commands)]
        parts += [f"\n{whom}:\n\n{text}\n" for whom, text in self.paste]
        return "\n".join([self.headline, "", *parts, "", self.footer])


def of_incident(incident: Incident, on_call: OnCall, now_ms: int) -> Message:
    """How an incident stands: its opening, and every later edit of it."""
    lore = LORE[incident.kind]
    mark = "🟢 Over" if incident.resolved_ms else "🟡" if lore.notice else "🔴"
    lines = [lore.means, *incident.lines, *_counts(incident)]
    if incident.resolved_ms:
        lines = [*_counts(incident), *_totals(incident, now_ms)]
    else:
        lines += [_next(incident), f"On call: {on_call.now(now_ms)}", *_clients(incident, on_call, now_ms)]
    return Message(
        f"{mark} {_line(incident.title)}",
        tuple(_line(line) for line in lines if line)[:LINES],
        tuple(_line(command) for command in _commands(incident)),
        f"incident {incident.id}, since {utc(incident.opened_ms / 1000)} · runbook.md: {incident.kind}",
    )


def of_story(incident: Incident, entries: Sequence[Entry], paste: tuple[tuple[str, str], ...]) -> Message:
    """New lines of the story, for the thread."""
    lines = tuple(_line(f"{clock(entry.at_ms)}  {entry.text}") for entry in entries)
    return Message(f"{incident.title}: what happened", lines[-LINES:], paste=paste)


def of_reminder(incident: Incident, on_call: OnCall, now_ms: int) -> Message:
    """That it lasts, or how its counts grew."""
    whole = of_incident(incident, on_call, now_ms)
    return Message(
        f"🔴 Still: {_line(incident.title)}, for {lasted(incident.seconds(now_ms))}",
        whole.lines,
        whole.commands,
        whole.footer,
    )


def of_closing(incident: Incident, on_call: OnCall, now_ms: int) -> Message:
    """That it is over, with duration and totals, and what to tell the clients who waited."""
    whole = of_incident(incident, on_call, now_ms)
    headline = f"🟢 Over after {lasted(incident.seconds(now_ms))}: {_line(incident.title)}"
    return Message(headline, whole.lines, whole.commands, whole.footer)


def lasted(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _counts(incident: Incident) -> Iterator[str]:
    if incident.kind is Kind.DEAD_LETTERS:
        yield f"{incident.dead:,} jobs: {counted(incident.reasons)}"
    if incident.kind is Kind.DEGRADED:
        yield f"{incident.degraded:,} jobs"
    if incident.tenants:
        yield f"Tenants: {counted(incident.tenants)}"
    if incident.jobs:
        more = (
            f", all: {_all_jobs(incident)}" if len(incident.jobs) >= FIRST or incident.dead > len(incident.jobs) else ""
        )
        yield f"Jobs: {' '.join(incident.jobs[:FIRST])}{more}"


def _all_jobs(incident: Incident) -> str:
    queue = _queue_option(incident)
    if incident.kind is Kind.DEAD_LETTERS:
        return f"failover dlq list --limit 10000{queue}"
    return f"failover job late{queue}"


def _totals(incident: Incident, now_ms: int) -> Iterator[str]:
    told = [f"It lasted {lasted(incident.seconds(now_ms))}"]
    if incident.saved:
        told.append(f"{incident.saved:,} jobs were answered by another route")
    if incident.late:
        told.append(f"{incident.late:,} were late at worst")
    if incident.dead and incident.kind is not Kind.DEAD_LETTERS:
        told.append(f"{incident.dead:,} ended as dead letters")
    yield "; ".join(told) + "."
    if incident.kind is Kind.DEAD_LETTERS:
        yield "No new one since; those that nobody has handled yet are kept."
    if incident.late:
        yield "Tell the clients who waited:"


def _next(incident: Incident) -> str:
    at = f" at {clock(incident.until_ms)}" if incident.until_ms else ""
    match incident.kind:
        case Kind.COLD | Kind.ROUTE_OPEN | Kind.CREDENTIALS:
            return f"Next: tried again{at or ' when a job comes'}; jobs go on by themselves when it answers."
        case Kind.PAUSED | Kind.BUDGET:
            return f"Next: goes on by itself{at}." if at else "Next: nothing goes on until somebody resumes."
        case Kind.DEAD_LETTERS:
            return "Next: nothing happens by itself; mend the cause, then requeue, or answer them by hand."
        case Kind.LATE | Kind.DEGRADED:
            return "Next: they are worked on in order; tell the clients."
        case Kind.WORKER_GONE | Kind.CRASH_LOOP:
            return "Next: its jobs run again by themselves; see that as many workers run as should."
        case _:
            return ""


def _clients(incident: Incident, on_call: OnCall, now_ms: int) -> Iterator[str]:
    if not LORE[incident.kind].message:
        return
    writers: dict[str, list[str]] = {}
    for tenant in list(incident.tenants)[:OFFERED]:
        writers.setdefault(on_call.writes_to(tenant, now_ms), []).append(tenant)
    for writer, tenants in writers.items():
        yield f"Clients: {writer} writes to {', '.join(tenants)}, with the message below."
    if not incident.tenants:
        yield f"Clients: {on_call.writes_to('', now_ms)} writes to those who wait, with the message below."


def _commands(incident: Incident) -> Iterator[str]:
    lore = LORE[incident.kind]
    if not incident.resolved_ms:
        for command in lore.commands:
            has_queue = command.startswith(("failover dlq", "failover job late"))
            yield command + (_queue_option(incident) if has_queue else "")
    name = ALL_CLEAR if incident.resolved_ms else lore.message
    if not name or (incident.resolved_ms and not incident.late):
        return
    for tenant in list(incident.tenants)[:OFFERED] or ["NAME"]:
        yield f"failover messages show {name} --tenant {shlex.quote(tenant)}"


def _queue_option(incident: Incident) -> str:
    return f" --queue {shlex.quote(incident.queue)}" if incident.queue not in ("", DEFAULT_QUEUE) else ""


def _line(text: str) -> str:
    """One line of printable text, cut."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= LONGEST_LINE else plain[: LONGEST_LINE - 1] + "…"
