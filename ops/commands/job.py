"""`failover job ...`: show, explain and cancel one job; list late jobs."""

from __future__ import annotations

import json

import click

from ops.local import session
from ops.options import as_json
from producer.client import DEFAULT_QUEUE
from producer.environment import Environment
from producer.errors import UsageError
from producer.job import JobResult
from producer.trail import Planned
from worker.control import worker_registry
from worker.control.pause import paused
from worker.humanize import many


@click.group("job")
def group() -> None:
    """Show, explain and cancel jobs."""


@group.command("show")
@click.argument("job_id")
@as_json
@click.pass_obj
def show(environment: Environment, job_id: str, as_json: bool) -> None:
    """Show a job's state, its attempts and its result."""
    with session.opened(environment) as active:
        result = active.producer.fetch(job_id)
    if as_json:
        click.echo(result.model_dump_json(indent=2))
    else:
        _print(result)


@group.command("why")
@click.argument("job_id")
@as_json
@click.pass_obj
def why(environment: Environment, job_id: str, as_json: bool) -> None:
    """Explain a job: its state, what it waits for and until when, every attempt and skipped route, and its cost."""
    from ops.reports.why import story

    with session.opened(environment) as active:
        report = story(active.producer, job_id)
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(report["told"]))


@group.command("late")
@click.option("--queue", default=DEFAULT_QUEUE, show_default=True)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@as_json
@click.pass_obj
def late(environment: Environment, queue: str, limit: int, as_json: bool) -> None:
    """List jobs past the time to answer that their policy promises, the latest first."""
    from dataclasses import asdict

    from ops.reports.late_jobs import listed

    with session.opened(environment) as active:
        total, jobs = listed(active.producer.client, queue, active.producer.policies, limit)
    if as_json:
        click.echo(json.dumps({"late": total, "jobs": [asdict(job) for job in jobs]}, indent=2))
        return
    click.echo(f"{total} jobs of {queue} are late")
    for job in jobs:
        click.echo(f"{job.job_id}  {job.tenant}  {job.job_type}  {job.status}, late by {job.late_seconds:.0f} s")
    for tenant in list(dict.fromkeys(job.tenant for job in jobs))[:5]:
        click.echo(f"message for the client: `failover messages show brief_delay --tenant {tenant}`")
    if by_hand := next((job for job in jobs if job.human_review), None):
        click.echo(f"a person may answer it: `failover dlq resolve {by_hand.job_id} --answer FILE`")


@group.command("cancel")
@click.argument("job_id", required=False)
@click.option("--tenant", help="Every job of this client that waits, in all queues, instead of one job.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def cancel(environment: Environment, job_id: str | None, tenant: str | None, yes: bool) -> None:
    """Cancel an unfinished job, or with --tenant every waiting job of a client. The running call of JOB_ID is stopped within
    seconds, and its answer is not used. A client's running jobs end as usual."""
    if bool(job_id) == bool(tenant):
        raise UsageError("give one job id, or --tenant NAME")
    with session.opened(environment) as active:
        if tenant:
            _cancel_tenant(active, tenant, yes)
            return
        active.producer.cancel(str(job_id), who=session.who())
    click.echo(f"{job_id} is cancelled")


def _cancel_tenant(active: session.Session, tenant: str, yes: bool) -> None:
    from worker.queue import tenant_jobs

    client = active.producer.client
    queues = worker_registry.queues(client, active.producer.queue)
    waiting = {queue: tenant_jobs.waiting(client, queue, tenant) for queue in queues}
    count = sum(map(len, waiting.values()))
    if count and not yes and not click.confirm(f"cancel {many(count, 'waiting job')} of {tenant} for good?"):
        click.echo("nothing was cancelled")
        return
    with session.progress(count) as report:
        cancelled = sum(
            tenant_jobs.cancel(client, queue, tenant, ids, who=session.who(), report=report)
            for queue, ids in waiting.items()
        )
    click.echo(f"{many(cancelled, 'job')} of {tenant} cancelled")
    if running := [job_id for queue in queues for job_id in tenant_jobs.running(client, queue, tenant)]:
        session.note(
            f"{many(len(running), 'job')} of it left running, to its usual end; `failover job cancel {running[0]}` stops one"
        )
    if count and not any(flag.tenant == tenant for flag in paused(client, queues)):
        session.note(
            f"new jobs of {tenant} are still accepted and start; `failover pause --tenant {tenant}` stops them"
        )


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
                continue  # only `failover job why` shows the plan
            fields = entry.model_dump()
            outcome = fields.get("outcome") or f"not tried: {fields['rejected']}"
            cells = (
                fields["execution"],
                fields["route"],
                fields["tier"],
                outcome,
                fields.get("ms", ""),
                fields.get("detail") or "",
            )
            trail.add_row(*(escape(str(cell)) for cell in cells))
        console.print(trail)
    if result.text:
        console.print()
        click.echo(result.text)
