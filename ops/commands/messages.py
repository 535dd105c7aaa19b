"""`failover messages ...`: texts to paste to a client, filled from the state of the client's jobs."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ops.commands import incidents
from ops.local import session
from ops.options import as_json
from producer.environment import Environment
from worker.control.pause import utc
from worker.notify.client_messages import load_messages, message_named
from worker.reports import client_status


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
    """Print one message, filled for a tenant or for the tenant of a job; without both, the template."""
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
            if incident_id is not None:
                facts["since"] = utc(incidents.named(active, incident_id).opened_ms / 1000)
        if not found.jobs and incident_id is None:
            session.note(f"no job of {found.tenant} waits: is the client's name right?")
    text = message.filled(facts)
    click.echo(json.dumps({"name": name, "facts": facts, "text": text}, indent=2) if as_json else text)
    if facts and not as_json and "{" in text:
        session.note("fill in the text in braces before you send it")
