"""`failover messages ...`: the text to paste to a client, filled from how the client's jobs stand."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import click
import redis

from ops import place
from ops.job import as_json
from producer import keyspace
from producer.client import DEFAULT_QUEUE
from producer.environment import Environment
from producer.errors import UnknownJob, UsageError
from producer.keyspace import JobField
from producer.results import status_of
from producer.scripts import ask
from worker import backlog, fleet
from worker.messages import eta, load_messages, message_named
from worker.pause import EVERYTHING, holding, utc

PAGE = 2000


@dataclass(frozen=True)
class Waiting:
    """One tenant's jobs that have not ended, and their queues. `since` in Unix seconds."""

    tenant: str
    jobs: int
    job_type: str
    since: float | None
    queues: tuple[str, ...] = ()


@click.group("messages")
def group() -> None:
    """Messages for clients, written before the outage (policies/messages/)."""


@group.command("list")
@as_json
@click.pass_obj
def list_messages(environment: Environment, as_json: bool) -> None:
    """Every message, and when to send it."""
    messages = load_messages(environment)
    if as_json:
        click.echo(json.dumps([asdict(message) for message in messages.values()], indent=2))
        return
    for message in messages.values():
        click.echo(f"{message.name}\n  {message.when}")


@group.command()
@click.argument("name")
@click.option("--tenant", help="The client that it goes to.")
@click.option("--job", "job_id", help="One job of the client, in place of --tenant.")
@as_json
@click.pass_obj
def show(environment: Environment, name: str, tenant: str | None, job_id: str | None, as_json: bool) -> None:
    """One message, filled for a tenant or for the tenant of a job: the text to paste. Without either, the template."""
    message = message_named(load_messages(environment), name)
    facts: dict[str, str] = {}
    if tenant is not None or job_id is not None:
        with place.opened(environment) as here:
            client = here.producer.client
            waiting = _of_job(client, job_id) if job_id is not None else _of_tenant(client, tenant or "")
            facts = facts_of(waiting, _minutes(client, waiting.queues or (here.producer.queue,)))
    text = message.filled(facts)
    click.echo(json.dumps({"name": name, "facts": facts, "text": text}, indent=2) if as_json else text)
    if facts and not as_json and "{" in text:
        place.note("fill what stands in braces before you send it")


def facts_of(waiting: Waiting, minutes: float | None) -> dict[str, str]:
    """What the placeholders stand for. What is not known is left out."""
    facts = {"tenant": waiting.tenant, "eta": eta(minutes)}
    if waiting.jobs:
        facts["job_type"] = waiting.job_type.replace("_", " ")
        facts["jobs"] = f"Your {waiting.jobs} jobs are" if waiting.jobs > 1 else "Your job is"
    return facts | ({"since": utc(waiting.since)} if waiting.since else {})


def _minutes(client: redis.Redis, queues: Sequence[str]) -> float | None:
    """Until the backlog is done; None while nobody can know: one of the queues is paused, or no route is open."""
    if any(holding(client, queue) for queue in queues) or fleet.no_route_open(client):
        return None
    return backlog.estimate(client, EVERYTHING, queues[0]).minutes


def _of_job(client: redis.Redis, job_id: str) -> Waiting:
    fields = ("status", "origin", JobField.TENANT, JobField.TYPE, JobField.ACCEPTED)
    (values,) = ask(client, [("HMGET", keyspace.job(job_id), *fields)])
    if values[0] is None:
        raise UnknownJob(job_id)
    if (status := status_of(values[0])).ended:
        raise UsageError(
            f"job {job_id} is {status}: there is nothing to wait for; --tenant tells of the client's other jobs"
        )
    origin, tenant, job_type, accepted = (value.decode(errors="replace") if value else "" for value in values[1:])
    return Waiting(tenant, 1, job_type, float(accepted) / 1000 if accepted else None, (origin,) if origin else ())


def _of_tenant(client: redis.Redis, tenant: str) -> Waiting:
    """Every accepted job is looked at: there is no index of tenants."""
    types: Counter[str] = Counter()
    since: list[float] = []
    queues: list[str] = []
    for queue in fleet.queues(client, DEFAULT_QUEUE):
        for owner, job_type, accepted in _accepted(client, queue):
            if owner == tenant.encode():
                types[job_type.decode() if job_type else "usual"] += 1
                since.append(float(accepted or 0) / 1000)
                queues.append(queue)
    usual = types.most_common(1)[0][0] if types else "usual"
    return Waiting(tenant, types.total(), usual, min(since, default=None), tuple(dict.fromkeys(queues)))


def _accepted(client: redis.Redis, queue: str) -> Iterator[list[bytes | None]]:
    """[tenant, type, accepted] of each job of a queue that has not ended."""
    fields = (JobField.TENANT, JobField.TYPE, JobField.ACCEPTED)
    for start in itertools.count(0, PAGE):
        (page,) = ask(client, [("ZRANGE", keyspace.accepted(queue), start, start + PAGE - 1)])
        if not page:
            return
        yield from ask(client, [("HMGET", keyspace.job(job_id.decode()), *fields) for job_id in page])
