"""`failover schedule list`: what policies/schedules.yaml starts, when next, and what came of the last start."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.markup import escape
from rich.table import Table

from ops.local import session
from ops.options import Group, as_json
from producer import keyspace
from producer.environment import Environment
from producer.policy import load_policies
from producer.scripts import ask
from worker.humanize import one_line
from worker.schedules.leader import Record, read_records
from worker.schedules.policy import FILE, Schedule, load_schedules

NEXT = 3  # times that are shown


@click.group("schedule", cls=Group)
def group() -> None:
    """What policies/schedules.yaml starts, and when."""


@group.command("list")
@as_json
@click.pass_obj
def list_schedules(environment: Environment, as_json: bool) -> None:
    """List the schedules: their next times in their own time zones, and what came of the last start."""
    schedules = load_schedules(environment, load_policies(environment).job_types).schedules
    with session.existing(environment) as client:
        (fields,) = ask(client, [("HGETALL", keyspace.SCHEDULES)]) if client else ({},)
    records, now = read_records(fields), time.time()
    rows = [_row(name, each, records.get(name), now) for name, each in schedules.items()]
    if as_json:
        click.echo(json.dumps({"schedules": rows}, indent=2))
        return
    if not rows:
        click.echo(f"nothing is scheduled: policies/{FILE} has examples")
        return
    table = Table("schedule", "cron", "starts", "next", "last start", "result", box=None)
    for row in rows:
        following = row["next"][0] if row["next"] else "off"
        cells = (row["name"], row["cron"], row["starts"], following, row["last"] or "-", _result(row))
        table.add_row(*(escape(one_line(cell, 200)) for cell in cells))
    session.console().print(table)


def _row(name: str, schedule: Schedule, record: Record | None, now: float) -> dict[str, Any]:
    zone = ZoneInfo(schedule.time_zone)
    following = islice(schedule.times(now), NEXT) if schedule.enabled else ()
    known = record if record is not None and record.definition == schedule.definition else None
    return {
        "name": name,
        "cron": schedule.cron,
        "time_zone": schedule.time_zone,
        "enabled": schedule.enabled,
        "starts": schedule.run or f"a job {schedule.job.job_type if schedule.job else ''}",
        "next": [datetime.fromtimestamp(at, zone).isoformat(timespec="minutes") for at in following],
        "last": datetime.fromtimestamp(known.time, zone).isoformat(timespec="minutes")
        if known and known.time
        else None,
        "started_at": datetime.fromtimestamp(known.started, UTC).isoformat() if known and known.started else None,
        "result": known.result if known else None,
        "missed": known.missed if known else 0,
        "skipped": known.skipped if known else False,
    }


def _result(row: dict[str, Any]) -> str:
    missed = f"{row['missed']} missed before{', skipped' if row['skipped'] else ''}" if row["missed"] else ""
    return "; ".join(filter(None, (row["result"], missed))) or "-"
