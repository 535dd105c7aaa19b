"""The `failover` command. An error is one sentence on stderr and an exit code by its kind, without a traceback."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import IO

import click
from redis.exceptions import RedisError

from ops.chat_body import body_of
from ops.commands import (
    batch,
    budget,
    cache,
    dlq,
    drill,
    history,
    incidents,
    job,
    messages,
    notify,
    pause,
    review,
    routes,
    tokens,
)
from ops.commands.doctor import doctor
from ops.commands.serve import serve
from ops.local import session
from ops.options import as_json
from ops.printing import guard_output
from producer.client import DEFAULT_QUEUE
from producer.environment import Environment, load_environment
from producer.errors import FailoverError, UsageError
from producer.job import JobStatus, LLMJob

PROGRESS_SECONDS = 5.0  # between two progress lines of a batch
EXIT_CODES = (
    "Exit codes: 0 done, 1 some work failed, 2 wrong usage or configuration, 3 Redis is not reachable or not safe."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(package_name="failover-worker")
@click.pass_context
def failover(context: click.Context) -> None:
    """Submit LLM jobs, see their state, and operate the system. Configuration: the environment or `.env`."""
    context.obj = load_environment()


@failover.command()
@as_json
def demo(as_json: bool) -> None:
    """Run a batch through an outage of the hot provider. It needs no key, no Redis and no network."""
    from ops.demo import run

    sys.exit(run(as_json=as_json))


@failover.group("batch")
def batch_group() -> None:
    """Batch files in the OpenAI Batch format."""


@batch_group.command("run")
@click.argument("source", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Results, in input order.")
@click.option("--errors", type=click.Path(dir_okay=False, path_type=Path), help="A file for the failed lines.")
@click.option("--job-type", default="batch", show_default=True, help="A type of policies/jobs.yaml.")
@click.option("--tenant", default="default", show_default=True, help="The client that the work is for.")
@click.option("--feature", default="", help="What the work is for; caps and cached answers depend on it.")
@click.option(
    "--detach", is_flag=True, help="Only enqueue; run the same command without --detach to collect the results."
)
@click.pass_obj
def batch_run(
    environment: Environment,
    source: Path,
    output: Path | None,
    errors: Path | None,
    job_type: str,
    tenant: str,
    feature: str,
    detach: bool,
) -> None:
    """Run every line of SOURCE. Running the same file again resumes it, and pays for nothing twice."""
    if output is None and not detach:
        raise UsageError("no output: add -o OUT.jsonl, or --detach to enqueue only")
    batch.check_writable(source, output, errors)
    with (session.opened if detach else session.executing)(environment) as active:
        submitted = batch.submit(active.producer, source, job_type=job_type, tenant=tenant, feature=feature)
        for bad in submitted.bad:
            session.note(str(bad))
        known = f", {submitted.known} of them from an earlier run" if submitted.known else ""
        session.note(f"{len(submitted.job_ids)} jobs{known}, {len(submitted.bad)} malformed lines")
        if detach or output is None:
            session.warn_without_worker(active)
            sys.exit(1 if submitted.bad else 0)
        _wait_with_progress(active, submitted)
        written = batch.write(active.producer, submitted, output, errors)
    for route, count in sorted(written.by_route.items()):
        session.note(f"{count:7} by {route}")
    for why, dead in written.deaths.items():
        session.note(f"{len(dead):7} dead, {why}: {' '.join(dead[:3])}{' ...' if len(dead) > 3 else ''}")
    if written.dead:
        session.note("fix the cause, `failover dlq requeue` them, and run the same command again for the whole file")
    session.note(f"{written.done} done, {written.dead} dead, {written.bad} malformed -> {output}")
    sys.exit(0 if written.done == len(submitted.entries) else 1)


def _wait_with_progress(active: session.Session, submitted: batch.Submitted) -> None:
    """Wait for the batch, with a progress bar on a terminal, else a line every PROGRESS_SECONDS."""
    total = len(submitted.job_ids)
    due = session.paced(PROGRESS_SECONDS)
    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from ops.console import PrintableConsole

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=PrintableConsole(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total)

            def show(ended: int) -> None:
                bar.update(task, completed=ended)
                if due():
                    bar.update(task, description=batch.progress(active.producer, submitted))

            batch.wait(active.producer, submitted, show)
        return

    def print_progress(ended: int) -> None:
        if due():
            session.note(f"{ended} of {total} ended; {batch.progress(active.producer, submitted)}")

    batch.wait(active.producer, submitted, print_progress)


@failover.command()
@click.argument("stdin", required=False, metavar="[-]")
@click.option("--prompt", help="The user's message.")
@click.option("--file", "source", type=click.File("rb"), help="A prompt as text, or a chat-completions body as JSON.")
@click.option("--job-type", default="default", show_default=True, help="A type of policies/jobs.yaml.")
@click.option("--tenant", default="default", show_default=True, help="The client that the work is for.")
@click.option("--user", default="", help="Who asked for it; part of the default idempotency key.")
@click.option("--feature", default="", help="What the work is for; caps and cached answers depend on it.")
@click.option("--idempotency-key", help="The same key again gives the same job.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Print the answer instead of the job id.")
@click.option(
    "--all", "everything", is_flag=True, help="Without REDIS_URL: also execute jobs that wait from earlier commands."
)
@as_json
@click.pass_obj
def submit(
    environment: Environment,
    stdin: str | None,
    prompt: str | None,
    source: IO[bytes] | None,
    job_type: str,
    tenant: str,
    user: str,
    feature: str,
    idempotency_key: str | None,
    wait: float | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Submit one job: prints its id, or with --wait its answer.

    The job comes from --prompt TEXT, --file F, or - (standard input).
    """
    given = [name for name, value in (("-", stdin), ("--prompt", prompt), ("--file", source)) if value is not None]
    if len(given) != 1 or stdin not in (None, "-"):
        raise UsageError("give exactly one of --prompt TEXT, --file F and - (standard input)")
    body = body_of(prompt if prompt is not None else (source or sys.stdin.buffer).read())
    fields = {
        "job_type": job_type,
        "tenant_id": tenant,
        "user_id": user,
        "feature": feature,
        "idempotency_key": idempotency_key,
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
        result = active.producer.wait(job_id, wait)
    if as_json:
        click.echo(result.model_dump_json(indent=2))
    elif result.status is JobStatus.DONE:
        click.echo(result.text)
        session.note(f"job {job_id}: {result.route} ({result.tier}), {result.attempts} attempts, {result.run_ms} ms")
    if result.status is not JobStatus.DONE:
        from ops.reports.why import without_answer

        session.note(without_answer(result))
    sys.exit(0 if result.status is JobStatus.DONE else 1)


@failover.command()
@as_json
@click.pass_obj
def status(environment: Environment, as_json: bool) -> None:
    """Show what is paused, queued, running, waiting and dead."""
    from ops.reports import status as status_view

    with session.reached(environment) as (_, client):
        found = status_view.gather(client, DEFAULT_QUEUE)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    status_view.render(found, session.console())


GROUPS = (budget, cache, dlq, drill, history, incidents, job, messages, notify, review, routes, tokens)
for command in (*(module.group for module in GROUPS), doctor, pause.pause, pause.resume, serve):
    failover.add_command(command)


def main() -> None:
    """Entry point. SIGTERM works like Ctrl-C: running jobs go back to the queue, and the embedded server stops."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    guard_output()
    try:
        failover.main(standalone_mode=False)
    except FailoverError as error:
        session.note(f"failover: {error}")
        sys.exit(error.exit_code)
    except RedisError as error:
        session.note(f"failover: Redis failed during the command: {error} — run it again when Redis is back")
        sys.exit(3)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UnicodeError:
        session.note("failover: an argument is not UTF-8 text")
        sys.exit(2)
    except OSError as error:
        session.note(f"failover: {error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        session.note("interrupted; accepted jobs stay accepted, and the same command continues where it stopped")
        sys.exit(130)
