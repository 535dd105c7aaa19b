"""`failover submit`, and `failover job ...`: show, explain and cancel one job; list late jobs."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from typing import IO

import click

from ops.chat_body import body_of
from ops.local import session
from ops.options import Group, as_json
from producer import Producer
from producer.client import DEFAULT_QUEUE
from producer.environment import Environment
from producer.errors import UsageError
from producer.job import JobResult, JobStatus, LLMJob
from producer.trail import Planned
from worker.control import worker_registry
from worker.control.pause import paused
from worker.humanize import many

TELL_SECONDS = 2.0  # between two looks at what a job waits for
WAIT_SECONDS = 60  # of `--wait` without a number


class Submit(click.Command):
    """`--wait` may stand without a number, and also before TEXT."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        options = args[: args.index("--")] if "--" in args else args
        for index, word in enumerate(options):
            if word == "--wait" and not re.fullmatch(r"[-+]?[\d.]+", "".join(options[index + 1 : index + 2])):
                args[index] = f"--wait={WAIT_SECONDS}"
        return super().parse_args(context, args)


@click.command(cls=Submit)
@click.argument("text", nargs=-1, metavar="[TEXT | -]")
@click.option("--prompt", help="The same as TEXT.")
@click.option("--file", "source", type=click.File("rb"), help="A prompt as text, or a chat-completions body as JSON.")
@click.option("--job-type", default="default", show_default=True, help="A type of policies/jobs.yaml.")
@click.option("--tenant", default="default", show_default=True, help="The client that the work is for.")
@click.option("--user", default="", help="Who asked for it; part of the default idempotency key.")
@click.option("--feature", default="", help="What the work is for; caps and cached answers depend on it.")
@click.option("--idempotency-key", help="The same key again gives the same job.")
@click.option("--not-before", metavar="TIME", help="Run it then: ISO 8601 with a zone, or after a time such as 90m.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="[SECONDS]",
    help=f"Print the answer instead of the job id. Waits {WAIT_SECONDS} seconds if no number is given.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Without REDIS_URL: also run what other commands than `submit --wait` have left.",
)
@as_json
@click.pass_obj
def submit(
    environment: Environment,
    text: tuple[str, ...],
    prompt: str | None,
    source: IO[bytes] | None,
    job_type: str,
    tenant: str,
    user: str,
    feature: str,
    idempotency_key: str | None,
    not_before: str | None,
    wait: float | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Submit one job: prints its id, or with --wait its answer.

    The job comes from TEXT, --file F, or - (standard input).
    """
    if len(text) > 1:
        raise UsageError(f"the text is one argument: put it in quotes, {shlex.quote(' '.join(text))}")
    texts = [*text, *([prompt] if prompt is not None else [])]
    if len(texts) + (source is not None) != 1:
        piped = not texts and sys.stdin is not None and not sys.stdin.isatty()
        hint = "; for what is piped in, add -" if piped else ""
        raise UsageError(f"give exactly one of TEXT, --file F and - (standard input){hint}")
    if text == ("-",) and sys.stdin is None:
        raise UsageError("standard input is closed: give TEXT or --file F")
    stream = sys.stdin.buffer if text == ("-",) else source
    body = body_of(stream.read() if stream else texts[0])
    fields = {
        "job_type": job_type,
        "tenant_id": tenant,
        "user_id": user,
        "feature": feature,
        "idempotency_key": idempotency_key,
        "not_before": _moment(not_before),
    }
    new_job = LLMJob.parse({**fields, "body": body})
    own_queue = None if everything else session.OWN_QUEUE
    with session.opened(environment) if wait is None else session.executing(environment, own_queue) as active:
        job_id = active.producer.enqueue(new_job)
        if wait is None:
            session.warn_without_worker(active)
            click.echo(json.dumps({"job_id": job_id}) if as_json else job_id)
            return
        session.note_others(active, job_id)
        result = _waited(active.producer, job_id, tenant, wait)
    if as_json:
        click.echo(result.model_dump_json(indent=2))
    elif result.status is JobStatus.DONE:
        click.echo(result.text)
        session.note(
            f"job {job_id}: {result.route} ({result.tier}), {many(result.attempts, 'attempt')}, {result.run_ms} ms"
        )
    if result.status is not JobStatus.DONE:
        from ops.reports.why import without_answer

        session.note(without_answer(result))
    sys.exit(0 if result.status is JobStatus.DONE else 1)


def _waited(producer: Producer, job_id: str, tenant: str, seconds: float) -> JobResult:
    """The result, or the job as it is after so many seconds. What it waits for is told meanwhile, once for each cause."""
    give_up, told = time.monotonic() + seconds, ""
    while True:
        left = give_up - time.monotonic()
        result = producer.wait(job_id, min(TELL_SECONDS, max(0.0, left)))
        if result.status.ended or left <= TELL_SECONDS:
            return result
        reason, text = str(result.waiting_reason or ""), f"it waits for {result.waiting_for}"
        if result.status is JobStatus.QUEUED and not reason:
            from ops.reports.why import held_up

            reason = text = held_up(producer.client, producer.queue, tenant)
        if reason not in ("", told):
            told = reason
            session.note(f"not answered yet: {text}")


def _moment(given: str | None) -> str | float | None:
    """The time of --not-before: text for the job to read, or the Unix seconds of a time from now."""
    if given is None or given[-1:] not in "smhd":
        return given
    return time.time() + session.age_seconds("--not-before", given)


@click.group("job", cls=Group)
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
        report = story(active.producer, active.producer.fetch(job_id))
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
    from worker.notify.incidents import Incidents, message_for_late_jobs

    with session.opened(environment) as active:
        client = active.producer.client
        total, jobs = listed(client, queue, active.producer.policies, limit)
        message = message_for_late_jobs(Incidents(client).unsettled())
    if as_json:
        click.echo(json.dumps({"late": total, "jobs": [asdict(job) for job in jobs]}, indent=2))
        return
    click.echo(f"{many(total, 'late job')} in {queue}")
    for job in jobs:
        click.echo(f"{job.job_id}  {job.tenant}  {job.job_type}  {job.status}, late by {job.late_seconds:.0f} s")
    if total > len(jobs):
        option = f" --queue {shlex.quote(queue)}" if queue != DEFAULT_QUEUE else ""
        click.echo(f"{total - len(jobs):,} more: `failover job late{option} --limit {total}`")
    for tenant in list(dict.fromkeys(job.tenant for job in jobs))[:5]:
        click.echo(f"message for the client: `failover messages show {message} --tenant {shlex.quote(tenant)}`")
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
            f"new jobs of {tenant} are still accepted and start; `failover pause --tenant {shlex.quote(tenant)}` stops them"
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
