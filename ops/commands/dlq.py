"""`failover dlq ...`: list, requeue, resolve and discard dead letters."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any, TypeVar

import click
from rich.markup import escape
from rich.table import Column, Table

from ops.commands import job
from ops.local import session
from ops.options import Group, as_json
from ops.requeue import after_canary
from producer.environment import Environment
from producer.errors import UsageError
from producer.job import DeadReason
from worker.humanize import many
from worker.notify.client_messages import load_messages
from worker.queue import dead_letters, lost
from worker.queue.dead_letters import Filters, Requeued
from worker.queue.lost import Lost
from worker.reports import client_status

DELIVERED = "delivered"  # the client message of policies/messages/

Command = TypeVar("Command", bound=Callable[..., Any])


def filters(command: Command) -> Command:
    """Adds the options that select dead letters."""
    options = (
        click.option("--reason", type=click.Choice([str(reason) for reason in DeadReason])),
        click.option("--tenant"),
        click.option("--since", metavar="AGE", help="Only those of the last 90m, 12h or 7d."),
        click.option("--route", help="Only those whose last attempt was on this route."),
        click.option("--queue", help="[default: ai-tasks]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _filters(active: session.Session, fields: dict[str, Any]) -> tuple[str, Filters]:
    since = fields["since"]
    since_ms = (
        dead_letters.now_ms(active.producer.client) - session.age_seconds("--since", since) * 1000 if since else None
    )
    chosen = Filters(fields["reason"], fields["tenant"], fields["route"], since_ms)
    return fields["queue"] or active.producer.queue, chosen


def _require_choice(job_ids: tuple[str, ...], everything: bool, fields: dict[str, Any]) -> None:
    """Require exactly one selection: ids, filters or --all. Raises UsageError."""
    named = any(fields[name] for name in ("reason", "tenant", "since", "route"))
    if bool(job_ids) + (named or everything) != 1:
        raise UsageError(
            "select dead letters: give job ids, or filters (--reason, --tenant, --since, --route), or --all"
        )


@click.group("dlq", cls=Group)
def group() -> None:
    """Dead letters: jobs that ended without an answer."""


@group.command("list")
@filters
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--lost", "lost_ones", is_flag=True, help="The jobs that left the queue without an outcome.")
@as_json
@click.pass_obj
def list_letters(environment: Environment, /, limit: int, lost_ones: bool, as_json: bool, **fields: Any) -> None:
    """List the newest dead letters; with --lost, the jobs whose data another tool deleted or overwrote."""
    with session.opened(environment) as active:
        if lost_ones:
            _list_lost(lost.listed(active.producer.client, limit), as_json=as_json)
            return
        queue, chosen = _filters(active, fields)
        letters = dead_letters.listed(active.producer.client, queue, chosen, limit)
    if as_json:
        click.echo(json.dumps([asdict(letter) for letter in letters], indent=2))
        return
    table = Table(
        Column("job", no_wrap=True, overflow="ignore", min_width=32),
        "died (UTC)",
        "reason",
        "tenant",
        "type",
        "gen",
        "why",
        box=None,
    )
    for letter in letters:
        died = time.strftime("%m-%d %H:%M:%S", time.gmtime(letter.died_ms / 1000))
        cells = (letter.job_id, died, letter.reason, letter.tenant, letter.job_type, letter.generation, letter.detail)
        table.add_row(*(escape(str(cell)) for cell in cells))
    session.console().print(table if letters else "no dead letter matches")


def _list_lost(found: list[Lost], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    table = Table(
        Column("job", no_wrap=True, overflow="ignore", min_width=32), "noticed (UTC)", "queue", "why", box=None
    )
    for each in found:
        noticed = time.strftime("%m-%d %H:%M:%S", time.gmtime(each.at_ms / 1000)) if each.at_ms else "?"
        table.add_row(*(escape(cell) for cell in (each.job_id, noticed, each.queue, each.why)))
    session.console().print(table if found else "no job is lost")


@group.command()
@click.option("--queue")
@as_json
@click.pass_obj
def stats(environment: Environment, queue: str | None, as_json: bool) -> None:
    """Count the dead letters by reason, tenant and route."""
    with session.opened(environment) as active:
        found = dead_letters.stats(active.producer.client, queue or active.producer.queue)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    click.echo(many(found.total, "dead letter"))
    if found.oldest_ms:
        click.echo(f"the oldest died at {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(found.oldest_ms / 1000))}")
    for name, counts in (("reason", found.by_reason), ("tenant", found.by_tenant), ("route", found.by_route)):
        for value, count in islice(counts.items(), 20):
            click.echo(f"{count:8} {name} {value}")


@group.command()
@click.argument("job_id")
@as_json
@click.pass_context
def show(context: click.Context, job_id: str, as_json: bool) -> None:
    """Show one dead letter: its reason and every attempt."""
    context.invoke(job.show, job_id=job_id, as_json=as_json)


@group.command()
@click.argument("job_ids", nargs=-1)
@filters
@click.option("--all", "everything", is_flag=True, help="Every dead letter of the queue.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="At most N jobs a second.")
@click.option(
    "--canary", type=click.IntRange(min=1), metavar="N", help="Requeue N first, the rest only if these are done."
)
@click.option(
    "--force", is_flag=True, help=f"Also jobs that were requeued {dead_letters.GENERATIONS_ALLOWED} times already."
)
@click.pass_obj
def requeue(
    environment: Environment,
    /,
    job_ids: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    rate: float | None,
    canary: int | None,
    force: bool,
    **fields: Any,
) -> None:
    """Requeue dead letters by id, by filter or --all. Each one exactly once, also if several people do it."""
    _require_choice(job_ids, everything, fields)
    with session.opened(environment) as active:
        client = active.producer.client
        queue, chosen = _filters(active, fields)
        until_ms = dead_letters.now_ms(client)

        def letters() -> Iterator[list[str]]:
            for page in dead_letters.pages(client, queue, chosen, until_ms=until_ms):
                yield [job_id for job_id, _ in page]

        by_queue = dead_letters.by_queue(client, job_ids)
        named = sum(len(ids) for ids in by_queue.values())
        if dry_run:
            count = named if job_ids else sum(len(page) for page in letters())
            click.echo(f"{many(count, 'dead letter')} would be requeued")
            return
        done = Requeued(gone=len(job_ids) - named)
        work = [(name, iter([ids])) for name, ids in by_queue.items()] if job_ids else [(queue, letters())]
        for name, batches in work:
            left = _after_canary(active, name, batches, canary, force, done) if canary else batches
            _requeue_with_progress(active, name, left, force, rate, done)
    click.echo(
        f"{done.requeued} requeued"
        + (f", {done.refused} refused: requeued too often (--force requeues them)" if done.refused else "")
        + (f", {done.gone} were not dead letters any more" if done.gone else "")
    )
    sys.exit(1 if done.refused else 0)


def _after_canary(
    active: session.Session, queue: str, batches: Iterator[list[str]], canary: int, force: bool, done: Requeued
) -> Iterator[list[str]]:
    session.warn_without_worker(active)
    left = after_canary(active.producer, queue, batches, canary, who=session.who(), force=force, done=done)
    session.note(f"the canary passed: {done.requeued} done")
    return left


def _requeue_with_progress(
    active: session.Session, queue: str, batches: Iterator[list[str]], force: bool, rate: float | None, done: Requeued
) -> None:
    due = session.paced(2)

    def print_progress(done: Requeued) -> None:
        if due():
            session.note(f"{done.requeued} requeued")

    client = active.producer.client
    dead_letters.requeue(
        client, queue, batches, who=session.who(), force=force, rate=rate, told=print_progress, done=done
    )


@group.command()
@click.argument("job_id")
@click.option("--answer", type=click.File("r", encoding="utf-8"), help="A file with the answer; - for stdin.")
@click.option("--text", "given", help="The answer itself. Without it and --answer, paste it, then Ctrl-D.")
@click.pass_obj
def resolve(environment: Environment, job_id: str, answer: Any, given: str | None) -> None:
    """Make a person's answer the job's result: text, or a chat completion as JSON. Prints the message for the client."""
    if answer is not None and given is not None:
        raise UsageError("give --answer or --text, not both")
    message = load_messages(environment).get(DELIVERED)
    with session.opened(environment) as active:
        dead_letters.queue_of(active.producer.client, job_id)  # first, before anybody pastes an answer
        if answer is None and given is None and sys.stdin.isatty():
            session.note("paste the answer, then press Enter and Ctrl-D")
        text = given if given is not None else (answer or sys.stdin).read()
        if not text.strip():
            raise UsageError("the answer is empty")
        keep = active.producer.policies.of_known("default").keep_results_seconds
        dead_letters.resolve(active.producer.client, job_id, text, who=session.who(), keep_seconds=keep)
        client_of = client_status.owner(active.producer.client, job_id)
    click.echo(f"{job_id} is done, resolved by {session.who()}")
    if message is not None:
        session.note(f"\nmessage for {client_of.tenant}, ready to paste:\n\n{message.filled(client_of.facts(None))}")


@group.command()
@click.argument("job_ids", nargs=-1)
@filters
@click.option("--all", "everything", is_flag=True)
@click.option("--lost", "lost_ones", is_flag=True, help="Take these jobs, or all, off the list of `dlq list --lost`.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def discard(
    environment: Environment,
    /,
    job_ids: tuple[str, ...],
    everything: bool,
    lost_ones: bool,
    dry_run: bool,
    yes: bool,
    **fields: Any,
) -> None:
    """Discard dead letters for good. They are kept as cancelled for a week; the audit records who did it."""
    if lost_ones:
        with session.opened(environment) as active:
            gone = lost.discard(active.producer.client, job_ids, who=session.who())
        click.echo(f"{gone} taken off the list of lost jobs")
        return
    _require_choice(job_ids, everything, fields)
    with session.opened(environment) as active:
        client = active.producer.client
        queue, chosen = _filters(active, fields)
        found = dead_letters.pages(client, queue, chosen, until_ms=dead_letters.now_ms(client))
        chosen_ids = list(job_ids) or [job_id for page in found for job_id, _ in page]
        if dry_run:
            click.echo(f"{many(len(chosen_ids), 'dead letter')} would be discarded")
            return
        if not yes:
            click.confirm(f"discard {many(len(chosen_ids), 'dead letter')} for good?", abort=True)
        by_queue = dead_letters.by_queue(client, chosen_ids) if job_ids else {queue: chosen_ids}
        discarded = sum(dead_letters.discard(client, q, ids, who=session.who()) for q, ids in by_queue.items())
    others = len(chosen_ids) - discarded
    click.echo(f"{discarded} discarded" + (f", {others} were not dead letters" if others else ""))
