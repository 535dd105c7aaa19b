"""`failover messages ...`: texts to paste to a client, filled from the state of the client's jobs."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ops.local import session
from ops.options import Group, as_json
from ops.reports.client_message import filled_for
from producer.environment import Environment
from worker.notify.client_messages import load_messages, message_named
from worker.reports import client_status


@click.group("messages", cls=Group)
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
    if tenant is None and job_id is None:
        click.echo(json.dumps({"name": name, "facts": {}, "text": message.text}, indent=2) if as_json else message.text)
        return
    with session.opened(environment) as active:
        client = active.producer.client
        found = client_status.of_job(client, job_id) if job_id else client_status.of_tenant(client, tenant or "")
        filled = filled_for(client, message, found, incident_id)
    if filled.of_nothing:
        session.note(f"no job of {found.tenant} waits, and no incident names it: is the client's name right?")
    facts = {"name": name, "facts": filled.facts, "text": filled.text}
    click.echo(json.dumps(facts, indent=2) if as_json else filled.text)
    if filled.unknown:
        session.note(f"before you send it, replace what stands in [brackets]: {', '.join(filled.unknown)}")
