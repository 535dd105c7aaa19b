"""`failover review ...`: jobs that a person may answer by hand; for people who are not technical."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.markup import escape
from rich.table import Column, Table

from ops.local import session
from ops.options import Group, as_json
from ops.reports import reviewable
from ops.reports.reviewable import Reviewable, text_of_message
from producer.environment import Environment
from producer.errors import UsageError
from worker.queue import dead_letters

NOTHING = (
    "no job whose policy has `human_review` waits for a person; others: `failover dlq list`, `failover job late`, and all that "
    "waits of one client: `failover review list --tenant NAME --waiting`. `failover dlq resolve ID` answers any of them"
)


@click.group("review", cls=Group)
def group() -> None:
    """Jobs that a person may answer by hand."""


@group.command("list")
@click.option("--tenant", help="Only the jobs of this client.")
@click.option("--waiting", is_flag=True, help="Every waiting job of --tenant, late or not, with its question.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000))
@as_json
@click.pass_obj
def list_jobs(environment: Environment, tenant: str | None, waiting: bool, limit: int, as_json: bool) -> None:
    """List late jobs and dead letters whose policy has `human_review`, the longest waiting first; with --waiting, every job
    of a client that waits."""
    if waiting and not tenant:
        raise UsageError("--waiting lists the jobs of one client: give --tenant NAME")
    with session.opened(environment) as active:
        now, total = dead_letters.now_ms(active.producer.client), 0
        if waiting and tenant:
            total, found = reviewable.waiting(active.producer, tenant, limit)
        else:
            found = reviewable.reviewable(active.producer, tenant, limit)
    if as_json:
        jobs = [asdict(job) for job in found]
        click.echo(json.dumps({"waiting": total, "jobs": jobs} if waiting else jobs, indent=2))
        return
    session.console().print(_table(found, now) if found else "nothing waits for a person" if waiting else NOTHING)
    if total > len(found):
        session.note(
            f"{total:,} jobs of {tenant} wait; the {len(found):,} that wait longest are listed (--limit: up to 1000)"
        )
    if found:
        first = found[0].job_id
        session.note(
            f"`failover review show {first}` prints the request, `failover dlq resolve {first}` takes your answer"
        )


@group.command()
@click.argument("job_id")
@click.pass_obj
def show(environment: Environment, job_id: str) -> None:
    """Show the request of a job, to answer it."""
    with session.opened(environment) as active:
        job = reviewable.request_of(active.producer, job_id)
    click.echo(f"{job.job_type} for {job.tenant_id}" + (f", asked by {job.user_id}" if job.user_id else ""))
    for message in job.body["messages"]:
        click.echo(f"\n--- {message['role']}\n{text_of_message(message)}")
    session.note(f"\nanswer it: failover dlq resolve {job_id}   (paste the answer, then Ctrl-D; or --answer FILE)")


def _table(found: Sequence[Reviewable], now: int) -> Table:
    job_id = Column("job", no_wrap=True, overflow="ignore", min_width=32)
    table = Table(job_id, "client", "work", "waits for", "why", "question", box=None)
    for job in found:
        waits = f"{max(0, now - job.since_ms) / 60_000:.0f} min"
        cells = (job.job_id, job.tenant, job.job_type, waits, job.why, job.question)
        table.add_row(*map(escape, cells))
    return table
