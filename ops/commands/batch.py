"""`failover batch run`: submit a batch file, wait for its jobs, and write their results in input order."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import click

from ops.local import session
from producer import Producer
from producer.batch import CHUNK, BadLine, Line, chunks, error_line, failed, output_line, read
from producer.environment import Environment
from producer.errors import ServiceUnavailable, UsageError
from producer.job import JobResult, JobStatus
from worker.control import worker_registry
from worker.control.pause import holding

STANDARD = Path("-")  # input and output
SHOWN_OF_A_KIND = 3  # bad lines
LOOK_EVERY_SECONDS = 0.25
WITHOUT_REDIS_SECONDS = 60.0
PROGRESS_SECONDS = 5.0  # between two progress lines of a batch


@click.group("batch")
def group() -> None:
    """Batch files in the OpenAI Batch format."""


@group.command("run")
@click.argument("source", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Results, in input order; - for standard output.",
)
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
    """Run every line of SOURCE (- is standard input). Running the same file again resumes it, and pays for nothing twice."""
    if output is None and not detach:
        raise UsageError("no output: add -o OUT.jsonl, or --detach to enqueue only")
    check_writable(source, output, errors)
    with (session.opened if detach else session.executing)(environment) as active:
        submitted = submit(active.producer, source, job_type=job_type, tenant=tenant, feature=feature)
        for told in _some(submitted.bad):
            session.note(told)
        known = f", {submitted.known} of them from an earlier run" if submitted.known else ""
        session.note(f"{len(submitted.job_ids)} jobs{known}, {len(submitted.bad)} malformed lines")
        if detach or output is None:
            session.warn_without_worker(active)
            sys.exit(1 if submitted.bad else 0)
        _wait_with_progress(active, submitted)
        written = write(active.producer, submitted, output, errors)
    for route, count in sorted(written.by_route.items()):
        session.note(f"{count:7} by {route}")
    for why, dead in written.deaths.items():
        session.note(f"{len(dead):7} dead, {why}: {' '.join(dead[:3])}{' ...' if len(dead) > 3 else ''}")
    if written.dead:
        session.note("fix the cause, `failover dlq requeue` them, and run the same command again for the whole file")
    session.note(f"{written.done} done, {written.dead} dead, {written.bad} malformed -> {output}")
    sys.exit(0 if written.done == len(submitted.entries) else 1)


def _some(bad: Sequence[BadLine]) -> Iterator[str]:
    """The first bad lines of each kind, and how many more there are."""
    counts: Counter[str] = Counter()
    for line in bad:
        kind = line.field or line.what.removeprefix("is ").partition(":")[0]
        counts[kind] += 1
        if counts[kind] <= SHOWN_OF_A_KIND:
            yield str(line)
    for kind, count in counts.items():
        if count > SHOWN_OF_A_KIND:
            yield f"and {count - SHOWN_OF_A_KIND:,} more like this ({kind})"


def _wait_with_progress(active: session.Session, submitted: Submitted) -> None:
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
                    bar.update(task, description=progress(active.producer, submitted))

            wait(active.producer, submitted, show)
        return

    def print_progress(ended: int) -> None:
        if due():
            session.note(f"{ended} of {total} ended; {progress(active.producer, submitted)}")

    wait(active.producer, submitted, print_progress)


@dataclass
class Submitted:
    """The lines of a file, in order: a job each, or the error of the line."""

    entries: list[tuple[str, str] | BadLine] = field(default_factory=list)  # (custom_id, job id)
    known: int = 0  # of these, jobs of an earlier run

    @property
    def job_ids(self) -> list[str]:
        return [entry[1] for entry in self.entries if not isinstance(entry, BadLine)]

    @property
    def bad(self) -> list[BadLine]:
        return [entry for entry in self.entries if isinstance(entry, BadLine)]


@dataclass
class Written:
    """The counts of a finished batch."""

    done: int = 0
    dead: int = 0
    bad: int = 0
    by_route: dict[str, int] = field(default_factory=dict)
    deaths: dict[str, list[str]] = field(default_factory=dict)  # why -> job ids


def check_writable(source: Path, *paths: Path | None) -> None:
    """Check, before any job is paid for, that each result file can be written. Raises UsageError."""
    taken = {source.resolve()}
    for path in paths:
        if path is None or path == STANDARD:
            continue
        where = path.resolve()
        if where in taken:
            raise UsageError(f"{path}: is the input or the other output already")
        taken.add(where)
        if not where.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist")
        if where.is_dir() or not os.access(where if where.exists() else where.parent, os.W_OK):
            raise UsageError(f"{path}: cannot be written")


def submit(producer: Producer, source: Path, *, job_type: str, tenant: str, feature: str = "") -> Submitted:
    """Enqueue every valid line. A second run finds the jobs of the first. Raises UsageError for an unreadable file."""
    producer.policies.of(job_type)
    submitted = Submitted()
    with _open(source) as lines:
        parsed = read(lines, job_type=job_type, tenant_id=tenant, feature=feature)
        for chunk in chunks(parsed):
            receipts = iter(producer.enqueue_many(line.job for line in chunk if isinstance(line, Line)))
            for line in chunk:
                if isinstance(line, BadLine):
                    submitted.entries.append(line)
                    continue
                receipt = next(receipts)
                submitted.entries.append((line.custom_id, receipt.job_id))
                submitted.known += receipt.outcome == "duplicate"
    return submitted


def wait(producer: Producer, submitted: Submitted, report: Callable[[int], None]) -> None:
    """Wait until every job has ended. `report` gets the number of ended jobs after each check.

    Waits WITHOUT_REDIS_SECONDS for a Redis that restarts, then raises ServiceUnavailable.
    """
    waiting = submitted.job_ids
    total = len(waiting)
    give_up: float | None = None
    while waiting:
        began = time.monotonic()
        try:
            ended = producer.ended(waiting)
            give_up = None
        except ServiceUnavailable:
            give_up = give_up or began + WITHOUT_REDIS_SECONDS
            if began > give_up:
                raise
            time.sleep(1)
            continue
        waiting = [job_id for job_id, has_ended in zip(waiting, ended, strict=True) if not has_ended]
        report(total - len(waiting))
        if waiting:
            time.sleep(max(LOOK_EVERY_SECONDS, 4 * (time.monotonic() - began)))  # check a slow Redis less often


def progress(producer: Producer, submitted: Submitted) -> str:
    """Why the batch is not finished: the states of the first unfinished jobs, and what they wait for."""
    if flags := holding(producer.client, producer.queue):
        return f"paused: {flags[0]}"
    ids = submitted.job_ids
    waiting = [job_id for job_id, ended in zip(ids, producer.ended(ids), strict=True) if not ended]
    results = [result for result in producer.fetch_many(waiting[:CHUNK]) if result]
    counts = Counter(str(result.status) for result in results)
    reasons = Counter(result.waiting_for for result in results if result.waiting_for)
    states = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    if not reasons and (closed := worker_registry.no_route_open(producer.client)):
        return f"{states}; no route is open: {closed}"
    more = "" if len(waiting) <= CHUNK else f" (of the first {CHUNK} waiting)"
    return states + more + (f"; waiting for {reasons.most_common(1)[0][0]}" if reasons else "")


def write(producer: Producer, submitted: Submitted, output: Path, errors: Path | None) -> Written:
    """Write the results in input order. Failed lines go to `errors` if given. A file appears only when it is complete."""
    written = Written()
    with ExitStack() as stack:
        sink = stack.enter_context(_replacing(output))
        error_sink = stack.enter_context(_replacing(errors)) if errors else sink
        for line, result in _results(producer, submitted):
            without = failed(line)
            (error_sink if without else sink).write(json.dumps(line, ensure_ascii=False) + "\n")
            written.done += not without
            if result is not None and result.status is JobStatus.DEAD:
                written.dead += 1
                written.deaths.setdefault(f"{result.dead_reason}: {result.dead_detail}", []).append(result.job_id)
            if result is not None and result.route:
                written.by_route[result.route] = written.by_route.get(result.route, 0) + 1
    written.bad = len(submitted.bad)
    return written


def _results(producer: Producer, submitted: Submitted) -> Iterator[tuple[dict[str, Any], JobResult | None]]:
    entries = iter(submitted.entries)
    while chunk := list(islice(entries, CHUNK)):
        results = iter(producer.fetch_many([entry[1] for entry in chunk if not isinstance(entry, BadLine)]))
        for entry in chunk:
            if isinstance(entry, BadLine):
                yield error_line(entry), None
            else:
                result = next(results)
                yield output_line(*entry, result), result


def _open(source: Path) -> IO[bytes]:
    try:
        return sys.stdin.buffer if source == STANDARD else source.open("rb")
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror}") from None


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """A text file that replaces `path` only when it is complete; a pipe, a device and standard output are written directly."""
    if path == STANDARD:
        yield sys.stdout
        sys.stdout.flush()
        return
    path = path.resolve()
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
