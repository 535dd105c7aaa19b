"""`failover batch run`: submit a batch file, wait for its jobs, and write their results in input order."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from ops.commands.batch.output import check_writable, write
from ops.commands.batch.run import PROGRESS_SECONDS, Submitted, progress, submit, wait
from ops.commands.batch.source import Source
from ops.local import session
from ops.options import Group
from ops.reports.batches import said
from producer.batch import BadLine
from producer.environment import Environment
from producer.errors import UsageError
from worker.humanize import many

SHOWN_OF_A_KIND = 3  # bad lines, and ignored fields
KINDS_SHOWN = 10
_INDEX = re.compile(r"\.\d+")  # of a message in a list: no kind of its own
FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("batch", cls=Group)
def group() -> None:
    """Batch files in the OpenAI Batch format."""


@group.command("run")
@click.argument("source", type=FILE)
@click.option("-o", "--output", type=FILE, help="Results, in input order; - for standard output.")
@click.option("--errors", type=FILE, help="A file for the failed lines.")
@click.option("--prompts", is_flag=True, help="SOURCE is a list of prompts, one on each line.")
@click.option("--csv", "column", metavar="COLUMN", help="SOURCE is a CSV or TSV; this column has the prompts.")
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
    prompts: bool,
    column: str | None,
    job_type: str,
    tenant: str,
    feature: str,
    detach: bool,
) -> None:
    """Run every line of SOURCE (- is standard input). Running the same file again resumes it, and pays for nothing twice.

    With --prompts or --csv the ids are line-1, line-2 and so on, and an output whose name ends in .csv or .tsv has the rows of
    SOURCE with the columns `answer` and `error`.
    """
    if output is None and not detach:
        raise UsageError("no output: add -o OUT.jsonl, or --detach to enqueue only")
    if prompts and column is not None:
        raise UsageError("--prompts and --csv: use one of them")
    check_writable(source, output, errors)
    lines = Source(source, prompts, column)
    with (session.opened if detach else session.executing)(environment) as active:
        submitted = submit(active.producer, lines, job_type=job_type, tenant=tenant, feature=feature)
        _say_what_was_read(submitted, with_hint=not prompts and column is None)
        if detach or output is None:
            session.warn_without_worker(active)
            sys.exit(1 if submitted.bad else 0)
        name = f"{lines.name} of {session.who()}, process {os.getpid()}"
        with said(active.producer.client, name, len(submitted.job_ids)) as say:
            _wait_with_progress(active, submitted, say)
        written = write(active.producer, submitted, output, errors, lines.table)
    for route, count in sorted(written.by_route.items()):
        session.note(f"{count:7} by {route}")
    for told in _deaths(written.deaths):
        session.note(told)
    if written.dead:
        session.note("fix the cause, `failover dlq requeue` them, and run the same command again for the whole file")
    session.note(f"{written.done} done, {written.dead} dead, {written.bad} malformed -> {output}")
    sys.exit(0 if written.done == len(submitted.entries) else 1)


def _say_what_was_read(submitted: Submitted, *, with_hint: bool) -> None:
    for told in (*_some(submitted.bad), *_ignored(submitted.ignored)):
        session.note(told)
    if with_hint and len(submitted.bad) == len(submitted.entries):
        session.note("no line is a job; for a list of prompts add --prompts, for a CSV --csv COLUMN")
    known = f", {submitted.known} of them from an earlier run" if submitted.known else ""
    session.note(f"{many(len(submitted.job_ids), 'job')}{known}, {many(len(submitted.bad), 'malformed line')}")


def _some(bad: Sequence[BadLine]) -> Iterator[str]:
    """The first bad lines of each kind, and how many more there are, of at most KINDS_SHOWN kinds."""
    counts: Counter[str] = Counter()
    for line in bad:
        kind = _INDEX.sub("", line.field) or line.what.removeprefix("is ").partition(":")[0]
        counts[kind] += 1
        if counts[kind] <= SHOWN_OF_A_KIND and len(counts) <= KINDS_SHOWN:
            yield str(line)
    for kind, count in list(counts.items())[:KINDS_SHOWN]:
        if count > SHOWN_OF_A_KIND:
            yield f"and {count - SHOWN_OF_A_KIND:,} more like this ({kind})"
    if others := sum(list(counts.values())[KINDS_SHOWN:]):
        yield f"and {others:,} of other kinds"


def _deaths(deaths: dict[str, list[str]]) -> Iterator[str]:
    """Why jobs are dead, the most frequent reasons first, each with the first jobs."""
    by_count = sorted(deaths.items(), key=lambda each: -len(each[1]))
    for why, dead in by_count[:KINDS_SHOWN]:
        yield f"{len(dead):7} dead, {why}: {' '.join(dead[:3])}{' ...' if len(dead) > 3 else ''}"
    if others := sum(len(dead) for _, dead in by_count[KINDS_SHOWN:]):
        yield f"{others:7} dead for other reasons: `failover dlq stats` counts them"


def _ignored(ignored: dict[str, tuple[int, int]]) -> Iterator[str]:
    """What stood beside the bodies, by name."""
    for name, (first, count) in list(ignored.items())[:SHOWN_OF_A_KIND]:
        lines = f"line {first}" if count == 1 else f"line {first} and {count - 1:,} more"
        yield f"{lines}: {name}: is ignored, because it stands beside `body` and not in it"
    if len(ignored) > SHOWN_OF_A_KIND:
        yield f"and {len(ignored) - SHOWN_OF_A_KIND:,} more fields like this"


def _wait_with_progress(active: session.Session, submitted: Submitted, say: Callable[[int], None]) -> None:
    """Wait for the batch, and `say` how many jobs have ended. A terminal has a progress bar; elsewhere there is
    a line every PROGRESS_SECONDS."""
    total = len(submitted.job_ids)
    due = session.paced(PROGRESS_SECONDS)
    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from ops.console import PrintableConsole

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=PrintableConsole(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total)

            def show(waiting: Sequence[str]) -> None:
                say(total - len(waiting))
                bar.update(task, completed=total - len(waiting))
                if due():
                    bar.update(task, description=progress(active.producer, waiting))

            wait(active.producer, submitted, show)
        return

    def print_progress(waiting: Sequence[str]) -> None:
        say(total - len(waiting))
        if waiting and due():
            session.note(f"{total - len(waiting)} of {total} ended; {progress(active.producer, waiting)}")

    wait(active.producer, submitted, print_progress)
