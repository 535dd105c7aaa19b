"""`failover job ...`: one job."""

from __future__ import annotations

import json

import click

from ops.local import session
from ops.options import as_json
from producer.client import DEFAULT_QUEUE
from producer.environment import Environment
from producer.job import JobResult
from producer.trail import Planned


@click.group("job")
def group() -> None:
    """One job."""


@group.command("show")
@click.argument("job_id")
@as_json
@click.pass_obj
def show(environment: Environment, job_id: str, as_json: bool) -> None:
    """How a job stands, its attempts, and its result."""
    with session.opened(environment) as here:
        result = here.producer.fetch(job_id)
    if as_json:
        click.echo(result.model_dump_json(indent=2))
    else:
        _print(result)


@group.command("why")
@click.argument("job_id")
@as_json
@click.pass_obj
def why(environment: Environment, job_id: str, as_json: bool) -> None:
    """A job's story: how it stands, what it waits for and until when, every attempt and route not tried, its cost."""
    from ops.reports.why import story

    with session.opened(environment) as here:
        told = story(here.producer, job_id)
    click.echo(json.dumps(told, indent=2) if as_json else "\n".join(told["told"]))


@group.command("late")
@click.option("--queue", default=DEFAULT_QUEUE, show_default=True)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@as_json
@click.pass_obj
def late(environment: Environment, queue: str, limit: int, as_json: bool) -> None:
    """Jobs past the time to answer that their policy promises, the latest first."""
    from dataclasses import asdict

    from ops.reports.late_jobs import listed

    with session.opened(environment) as here:
        total, jobs = listed(here.producer.client, queue, here.producer.policies, limit)
    if as_json:
        click.echo(json.dumps({"late": total, "jobs": [asdict(job) for job in jobs]}, indent=2))
        return
    click.echo(f"{total} jobs of {queue} are late")
    for job in jobs:
        click.echo(f"{job.job_id}  {job.tenant}  {job.job_type}  {job.status}, late by {job.late_seconds:.0f} s")
    for tenant in list(dict.fromkeys(job.tenant for job in jobs))[:5]:
        click.echo(f"the text for the client: `failover messages show brief_delay --tenant {tenant}`")
    if by_hand := next((job for job in jobs if job.human_review), None):
        click.echo(f"a human may answer: `failover dlq resolve {by_hand.job_id} --answer FILE`")


@group.command("cancel")
@click.argument("job_id")
@click.pass_obj
def cancel(environment: Environment, job_id: str) -> None:
    """Cancel a job that has not ended. A running call is broken off within seconds; its answer is not taken."""
    with session.opened(environment) as here:
        here.producer.cancel(job_id, who=session.who())
    click.echo(f"{job_id} is cancelled")


def _print(result: JobResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = session.console()
    facts = result.model_dump(exclude={"trail", "completion", "schema_version"}, exclude_none=True)
    for name, value in facts.items():
        console.print(f"[dim]{name:16}[/] {escape(str(value))}")
    if result.trail:
        trail = Table(
            "execution", "route", "tier", "outcome", "ms", "detail", box=None, title="trail", title_justify="left"
        )
        for entry in result.trail:
            if isinstance(entry, Planned):
                continue  # `failover job why` tells of it
            said = entry.model_dump()
            outcome = said.get("outcome") or f"not tried: {said['rejected']}"
            cells = (
                said["execution"],
                said["route"],
                said["tier"],
                outcome,
                said.get("ms", ""),
                said.get("detail") or "",
            )
            trail.add_row(*(escape(str(cell)) for cell in cells))
        console.print(trail)
    if result.text:
        console.print()
        click.echo(result.text)
