"""`failover incidents ...`: open and past incidents, for the person on call and for the monthly review."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from ops.local import session
from ops.options import Group, as_json
from ops.reports.client_message import incident_named
from producer.environment import Environment
from producer.errors import UsageError
from worker.control.pause import utc
from worker.humanize import clock, counted, lasted, many
from worker.notify.delivery_state import DeliveryState
from worker.notify.incidents import Incident, Incidents
from worker.queue.dead_letters import now_ms

CHANNELS = ("slack", "email", "webhook")


@click.group("incidents", cls=Group, invoke_without_command=True)
@click.pass_context
def group(context: click.Context) -> None:
    """Incidents: open ones, past ones, and their messages."""
    if context.invoked_subcommand is None:
        context.invoke(list_incidents, since="30d", as_json=False)


@group.command("list")
@click.option("--since", default="30d", show_default=True, metavar="AGE", help="Those of the last 12h or 7d.")
@as_json
@click.pass_obj
def list_incidents(environment: Environment, since: str, as_json: bool) -> None:
    """List the incidents of a period, the newest last."""
    with session.opened(environment) as active:
        now = now_ms(active.producer.client)
        store = Incidents(active.producer.client)
        found = store.since(now - session.age_seconds("--since", since) * 1000)
        silenced = store.silenced(found)
    if as_json:
        click.echo(json.dumps([_data(each, now) for each in found], indent=2))
        return
    table = Table("id", "opened", "what", "state", "saved", "late", "degraded", "dead", "tenants", box=None)
    for each in found:
        state = (
            f"over after {lasted(each.seconds(now))}" if each.resolved_ms else f"OPEN for {lasted(each.seconds(now))}"
        )
        if each.id in silenced:
            state += f", silenced by {silenced[each.id]}"
        what = each.title + (f" ({each.queue})" if each.queue else "")
        numbers = (str(count) for count in (each.saved, each.late, each.degraded, each.dead))
        cells = (each.id, utc(each.opened_ms / 1000), what, state, *numbers, counted(each.tenants, 3))
        table.add_row(*(escape(cell) for cell in cells))
    session.console().print(table if found else f"no incident in the last {since}")


@group.command()
@click.argument("incident_id", metavar="ID")
@as_json
@click.pass_obj
def show(environment: Environment, incident_id: str, as_json: bool) -> None:
    """Show one incident and its story."""
    with session.opened(environment) as active:
        incident, now = incident_named(active.producer.client, incident_id), now_ms(active.producer.client)
        story = Incidents(active.producer.client).story(incident.id)
    if as_json:
        click.echo(json.dumps({**_data(incident, now), "story": [asdict(entry) for entry in story]}, indent=2))
        return
    lines = [
        *_summary(incident, now),
        *_channels(incident),
        "",
        *(f"{clock(entry.at_ms)}  {entry.text}" for entry in story),
    ]
    click.echo("\n".join(lines))


@group.command()
@click.option("--month", metavar="YYYY-MM", help="[default: this month]")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file instead of the terminal."
)
@click.pass_obj
def export(environment: Environment, month: str | None, output: Path | None) -> None:
    """Export a month's incidents as markdown: dates, durations, jobs saved, late and dead."""
    begin = _month(month)
    end = datetime(begin.year + begin.month // 12, begin.month % 12 + 1, 1, tzinfo=UTC)
    with session.opened(environment) as active:
        store, now = Incidents(active.producer.client), now_ms(active.producer.client)
        found = store.since(int(begin.timestamp() * 1000), int(end.timestamp() * 1000) - 1)
        stories = {each.id: store.story(each.id) for each in found}
    lines = list(_markdown(f"{begin:%B %Y}", found, now))
    for each in found:
        lines += ["", f"## {each.id}. {_cell(each.title)}", ""]
        lines += [f"- {utc(entry.at_ms / 1000)}: {_cell(entry.text)}" for entry in stories[each.id]]
    if output is None:
        click.echo("\n".join(lines))
    else:
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")
        session.note(f"{many(len(found), 'incident')} -> {output}")


@group.command()
@click.argument("incident_id", metavar="ID")
@click.option("--for", "length", required=True, metavar="AGE", help="For a time such as 30m, 2h or 1d.")
@click.option("--reason", default="", help="Why; shown with the incident.")
@click.pass_obj
def silence(environment: Environment, incident_id: str, length: str, reason: str) -> None:
    """Send no message of this kind, provider and queue for a time. Incidents are still recorded."""
    seconds = session.age_seconds("--for", length)
    with session.opened(environment) as active:
        incident = incident_named(active.producer.client, incident_id)
        Incidents(active.producer.client).silence(incident, seconds, who=session.who(), why=reason)
    click.echo(f"silenced for {length}: {incident.title}; `failover incidents unsilence {incident_id}` ends it earlier")


@group.command()
@click.argument("incident_id", metavar="ID")
@click.pass_obj
def unsilence(environment: Environment, incident_id: str) -> None:
    """End a silence early."""
    with session.opened(environment) as active:
        incident = incident_named(active.producer.client, incident_id)
        ended = Incidents(active.producer.client).unsilence(incident, who=session.who())
    click.echo(f"messages are sent again: {incident.title}" if ended else f"{incident.title} was not silenced")


def _month(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    found = re.fullmatch(r"(20\d\d)-(0[1-9]|1[0-2])", text)
    if not found:
        raise UsageError(f"--month {text}: use a year and a month, such as {time.strftime('%Y-%m', time.gmtime())}")
    return datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC)


def _data(incident: Incident, now: int) -> dict[str, Any]:
    fields = asdict(incident)
    del fields["fields"], fields["marks"]
    return {**fields, "title": incident.title, "seconds": incident.seconds(now)}


def _summary(incident: Incident, now: int) -> Iterator[str]:
    yield f"incident {incident.id}: {incident.title}" + (f" ({incident.queue})" if incident.queue else "")
    until = f" to {utc(incident.resolved_ms / 1000)}" if incident.resolved_ms else ", still open"
    yield f"{utc(incident.opened_ms / 1000)}{until}: {lasted(incident.seconds(now))}"
    yield f"saved {incident.saved}, late {incident.late}, degraded {incident.degraded}, dead {incident.dead}"
    if incident.tenants:
        yield f"tenants: {counted(incident.tenants, 50)}"
    if incident.jobs:
        yield f"jobs: {' '.join(incident.jobs)}"


def _channels(incident: Incident) -> Iterator[str]:
    """The deliveries to each channel, with their times."""
    for name in CHANNELS:
        parts = (
            ("opening", DeliveryState.of(incident, name, "opening")),
            ("end", DeliveryState.of(incident, name, "closing")),
        )
        if sent := [f"{part} {delivery.state} {clock(delivery.at_ms)}" for part, delivery in parts if delivery.state]:
            yield f"{name}: {', '.join(sent)}"


def _markdown(title: str, found: Sequence[Incident], now: int) -> Iterator[str]:
    yield f"# Incidents of {title}"
    yield ""
    saved, dead = sum(each.saved for each in found), sum(each.dead for each in found if each.kind == "dead_letters")
    yield f"{many(len(found), 'incident')}; {many(saved, 'job')} answered by another route, {many(dead, 'dead letter')}."
    yield ""
    yield "| | opened (UTC) | over | lasted | what | saved | late | degraded | dead | tenants |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for each in found:
        over = utc(each.resolved_ms / 1000).removesuffix(" UTC") if each.resolved_ms else "still open"
        opened, tenants = utc(each.opened_ms / 1000).removesuffix(" UTC"), _cell(counted(each.tenants, 5))
        counts = f"{each.saved} | {each.late} | {each.degraded} | {each.dead}"
        what = _cell(each.title)
        yield f"| {each.id} | {opened} | {over} | {lasted(each.seconds(now))} | {what} | {counts} | {tenants} |"


def _cell(text: str) -> str:
    """The text escaped for a markdown table."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
