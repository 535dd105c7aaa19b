"""`failover review ...`: jobs that a person may answer by hand; for people who are not technical."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import redis
from rich.markup import escape
from rich.table import Column, Table

from ops.local import session
from ops.options import as_json
from ops.reports import late_jobs
from producer import keyspace
from producer.environment import Environment
from producer.errors import FailoverError, UsageError
from producer.job import DeadReason, ForeignJob, NewerSchema, decode_job
from producer.keyspace import JobField
from producer.scripts import ask
from worker.control import worker_registry
from worker.humanize import one_line
from worker.queue import dead_letters, tenant_jobs
from worker.queue.dead_letters import Filters

FOR_A_PERSON = {
    DeadReason.REFUSED: "no model may answer it",
    DeadReason.EXHAUSTED: "no model could answer it",
    DeadReason.REJECTED: "no model can take it as it is",
    DeadReason.EXPIRED: "it waited for too long",
    DeadReason.CRASHED: "it crashed its workers",
}
NOTHING = (
    "no job whose policy has `human_review` waits for a person; others: `failover dlq list`, `failover job late`, and all that "
    "waits of one client: `failover review list --tenant NAME --waiting`. `failover dlq resolve ID` answers any of them"
)
QUESTION = 100  # characters of a question in a list
READ_AT_MOST = 10_000  # late jobs in one search


@dataclass(frozen=True)
class Reviewable:
    """A job that a person may answer. `since_ms`: Unix time when its promised time passed, when it died, or with --waiting
    when it was accepted. `question`: the beginning of its last message, with --waiting."""

    job_id: str
    tenant: str
    job_type: str
    why: str
    since_ms: int
    question: str = ""


@click.group("review")
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
            total, found = _waiting(active, tenant, limit)
        else:
            found = sorted(_reviewable(active, tenant, limit, now), key=lambda job: job.since_ms)[:limit]
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
        (data,) = ask(active.producer.client, [("HGET", keyspace.job(job_id), "data")])
        result = active.producer.fetch(job_id)
    if result.status.ended and result.status != "dead":
        raise UsageError(f"job {job_id} is {result.status}: it needs no answer")
    try:
        job = decode_job(data or b"")
    except (FailoverError, ForeignJob, NewerSchema) as error:
        raise FailoverError(f"job {job_id} cannot be read: {error}") from None
    click.echo(f"{job.job_type} for {job.tenant_id}" + (f", asked by {job.user_id}" if job.user_id else ""))
    for message in job.body["messages"]:
        click.echo(f"\n--- {message['role']}\n{_text(message)}")
    session.note(f"\nanswer it: failover dlq resolve {job_id}   (paste the answer, then Ctrl-D; or --answer FILE)")


def _reviewable(active: session.Session, tenant: str | None, limit: int, now: int) -> Iterator[Reviewable]:
    client, policies = active.producer.client, active.producer.policies
    for queue in worker_registry.queues(client, active.producer.queue):
        _, jobs = late_jobs.listed(client, queue, policies, READ_AT_MOST)
        for job in jobs:
            if job.human_review and tenant in (None, job.tenant):
                why = f"late, {job.status}"
                yield Reviewable(job.job_id, job.tenant, job.job_type, why, now - int(job.late_seconds * 1000))
        for reason, why in FOR_A_PERSON.items():
            for letter in dead_letters.listed(client, queue, Filters(reason=reason, tenant=tenant), limit):
                if policies.of_known(letter.job_type).human_review:
                    yield Reviewable(letter.job_id, letter.tenant, letter.job_type, why, letter.died_ms)


def _waiting(active: session.Session, tenant: str, limit: int) -> tuple[int, list[Reviewable]]:
    """(how many jobs of a client wait in all queues, the `limit` that wait longest)."""
    client = active.producer.client
    queues = worker_registry.queues(client, active.producer.queue)
    ids = [job_id for queue in queues for job_id in tenant_jobs.waiting(client, queue, tenant)]
    accepted: list[int] = []
    for start in range(0, len(ids), tenant_jobs.PAGE):
        page = ids[start : start + tenant_jobs.PAGE]
        times = ask(client, [("HGET", keyspace.job(job_id), JobField.ACCEPTED) for job_id in page])
        accepted += [int(ms or 0) for ms in times]
    oldest = heapq.nsmallest(limit, zip(accepted, ids, strict=True))
    return len(ids), [_with_question(client, tenant, job_id, since_ms) for since_ms, job_id in oldest]


def _with_question(client: redis.Redis, tenant: str, job_id: str, since_ms: int) -> Reviewable:
    """Reads one job alone, because the requests of many may be larger than the memory."""
    fields = ("data", JobField.TYPE, JobField.WAITING_FOR)
    (values,) = ask(client, [("HMGET", keyspace.job(job_id), *fields)])
    data, job_type, why = (value or b"" for value in values)
    try:
        question = one_line(_text(decode_job(data).body["messages"][-1]), QUESTION)
    except (FailoverError, ForeignJob, NewerSchema):
        question = "(it cannot be read)"
    texts = (job_type.decode(errors="replace"), why.decode(errors="replace") or "queued")
    return Reviewable(job_id, tenant, *texts, since_ms, question)


def _table(found: Sequence[Reviewable], now: int) -> Table:
    asked = any(job.question for job in found)
    job_id = Column("job", no_wrap=True, overflow="ignore", min_width=32)
    table = Table(job_id, "client", "work", "waits for", "why", *(["question"] if asked else []), box=None)
    for job in found:
        waits = f"{max(0, now - job.since_ms) / 60_000:.0f} min"
        cells = (job.job_id, job.tenant, job.job_type, waits, job.why, *([job.question] if asked else []))
        table.add_row(*map(escape, cells))
    return table


def _text(message: Any) -> str:
    """The text of a chat message; other parts are shown as `[type]`."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [str(part.get("text", f"[{part.get('type', '?')}]")) if isinstance(part, dict) else "[?]" for part in parts]
    return "\n".join(texts) or json.dumps({key: value for key, value in message.items() if key != "role"})
