"""`failover messages ...`: texts to paste to a client, filled from the state of the client's jobs."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
import redis

from ops.commands import incidents
from ops.local import session
from ops.options import as_json
from producer.environment import Environment
from worker.control.pause import utc
from worker.notify.client_messages import PLACEHOLDERS, load_messages, message_named
from worker.notify.incidents import Incident, Incidents
from worker.notify.kinds import KIND_INFO
from worker.queue.dead_letters import now_ms
from worker.reports import client_status

INCIDENT_AGE_MS = 7 * 86_400_000  # an older one is hardly what the client is told about


@click.group("messages")
def group() -> None:
    """Message templates for clients (policies/messages/)."""


@group.command("list")
@as_json
@click.pass_obj
def list_messages(environment: Environment, as_json: bool) -> None:
    """List every message, and when to send it."""
    messages = load_messages(environment)
    if as_json:
        click.echo(json.dumps([asdict(message) for message in messages.values()], indent=2))
        return
    for message in messages.values():
        click.echo(f"{message.name}\n  {message.when}")


@group.command()
@click.argument("name")
@click.option("--tenant", help="The client.")
@click.option("--job", "job_id", help="One job of the client, instead of --tenant.")
@click.option("--incident", "incident_id", help="The id of the incident that it is about.")
@as_json
@click.pass_obj
def show(
    environment: Environment,
    name: str,
    tenant: str | None,
    job_id: str | None,
    incident_id: str | None,
    as_json: bool,
) -> None:
    """Print one message, filled for a tenant or for the tenant of a job; without both, the template.

    Without --incident it is about the client's incident: the open one, or the newest of the last week.
    """
    message = message_named(load_messages(environment), name)
    facts: dict[str, str] = {}
    if tenant is not None or job_id is not None:
        with session.opened(environment) as active:
            client = active.producer.client
            found = (
                client_status.of_job(client, job_id)
                if job_id is not None
                else client_status.of_tenant(client, tenant or "")
            )
            facts = found.facts(client_status.minutes(client, found.queues or (active.producer.queue,)))
            about = (
                _incident(client, found.tenant, name, waits=found.jobs > 0)
                if incident_id is None
                else incidents.named(active, incident_id)
            )
            if about is not None:
                facts["since"] = utc(about.opened_ms / 1000)
        if not found.jobs and about is None:
            session.note(f"no job of {found.tenant} waits, and no incident names it: is the client's name right?")
    unknown = {word: f"[{PLACEHOLDERS[word]}]" for word in sorted(message.needs - facts.keys()) if facts}
    text = message.filled(facts | unknown)
    click.echo(json.dumps({"name": name, "facts": facts, "text": text}, indent=2) if as_json else text)
    if unknown:
        session.note(f"before you send it, replace what stands in [brackets]: {', '.join(unknown.values())}")


def _incident(client: redis.Redis, tenant: str, name: str, *, waits: bool) -> Incident | None:
    """The incident that names the client and that the message is about; None if there is none in INCIDENT_AGE_MS.

    One whose kind has this message goes first, then an open one, then the newest. `waits`: jobs of the client wait, whose
    time is known; then an incident counts only if it has this message and is open, or has dead letters left.
    """
    found = [
        each
        for each in Incidents(client).since(now_ms(client) - INCIDENT_AGE_MS)
        if tenant in (*each.tenants, *each.degraded_of)
        and (not waits or (_has(each, name) and (each.resolved_ms is None or each.left)))
    ]
    return max(found, key=lambda each: (_has(each, name), each.resolved_ms is None, each.opened_ms), default=None)


def _has(incident: Incident, name: str) -> bool:
    return KIND_INFO[incident.kind].message == name
