"""The jobs of a batch: submit the lines of a file, wait until all have ended, and say what they wait for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ops.commands.batch.source import Source
from ops.local import session
from producer import Producer, keyspace
from producer.batch import CHUNK, BadLine, Line, Reader, WrongFile, chunks
from producer.errors import ServiceUnavailable
from producer.results import FIELDS, result_of
from producer.scripts import ask
from worker.control import worker_registry
from worker.control.pause import holding
from worker.humanize import many

LOOK_EVERY_SECONDS = 0.25
WITHOUT_REDIS_SECONDS = 60.0
PROGRESS_SECONDS = 5.0  # between two progress lines of a batch


@dataclass(frozen=True)
class Submission:
    """A line that is a job. `size`: bytes of the line."""

    custom_id: str
    job_id: str
    size: int


@dataclass
class Submitted:
    """The lines of a file, in order: a job each, or the error of the line."""

    entries: list[Submission | BadLine] = field(default_factory=list)
    known: int = 0  # of these, jobs of an earlier run
    ignored: dict[str, tuple[int, int]] = field(default_factory=dict)  # field beside `body` -> first line, how many

    @property
    def job_ids(self) -> list[str]:
        return [entry.job_id for entry in self.entries if isinstance(entry, Submission)]

    @property
    def bad(self) -> list[BadLine]:
        return [entry for entry in self.entries if isinstance(entry, BadLine)]

    def add(self, line: Line, job_id: str, *, known: bool) -> None:
        """A line that is the job `job_id` now. `known`: it was already."""
        self.entries.append(Submission(line.custom_id, job_id, line.size))
        self.known += known
        for name in line.ignored:
            first, count = self.ignored.get(name, (line.number, 0))
            self.ignored[name] = (first, count + 1)


def submit(producer: Producer, source: Source, *, job_type: str, tenant: str, feature: str = "") -> Submitted:
    """Enqueue every valid line. A second run finds the jobs of the first. Raises UsageError for an unreadable file."""
    producer.policies.of(job_type)
    submitted = Submitted()
    due = session.paced(PROGRESS_SECONDS)
    for chunk in chunks(source.lines(Reader(job_type=job_type, tenant_id=tenant, feature=feature))):
        receipts = iter(producer.enqueue_many(line.job for line in chunk if isinstance(line, Line)))
        for line in chunk:
            if isinstance(line, BadLine):
                submitted.entries.append(line)
                continue
            receipt = next(receipts)
            submitted.add(line, receipt.job_id, known=receipt.outcome == "duplicate")
        if due():
            session.note(f"{many(len(submitted.entries), 'line')} read")
    if not submitted.entries:
        raise WrongFile(f"{source.name}: has no line to run")
    return submitted


def wait(producer: Producer, submitted: Submitted, report: Callable[[Sequence[str]], None]) -> None:
    """Wait until every job has ended. `report` gets the ids of the others after each check.

    Waits WITHOUT_REDIS_SECONDS for a Redis that restarts, then raises ServiceUnavailable.
    """
    waiting = submitted.job_ids
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
        report(waiting)
        if waiting:
            time.sleep(max(LOOK_EVERY_SECONDS, 4 * (time.monotonic() - began)))  # check a slow Redis less often


def progress(producer: Producer, waiting: Sequence[str]) -> str:
    """Why the batch is not finished: the states of the first unfinished jobs, and what they wait for."""
    if flags := holding(producer.client, producer.queue):
        return f"paused: {flags[0]}"
    looked_at = waiting[:CHUNK]
    states = ask(producer.client, [("HMGET", keyspace.job(job_id), *FIELDS) for job_id in looked_at])
    found = [result_of(job_id, fields, ()) for job_id, fields in zip(looked_at, states, strict=True)]
    results = [result for result in found if result and not result.status.ended]
    counts = Counter(str(result.status) for result in results)
    reasons = Counter(result.waiting_for for result in results if result.waiting_for)
    states_text = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    if not reasons and (closed := worker_registry.no_route_open(producer.client)):
        return f"{states_text}; no route is open: {closed}"
    more = "" if len(waiting) <= CHUNK else f" (of the first {CHUNK} waiting)"
    return states_text + more + (f"; waiting for {reasons.most_common(1)[0][0]}" if reasons else "")
