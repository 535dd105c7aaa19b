"""`failover tokens ...`: the tokens of the web process beside FAILOVER_API_TOKEN."""

from __future__ import annotations

import json
import time

import click
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from ops.local import session
from ops.options import Group, as_json
from producer.environment import Environment
from producer.errors import UsageError, first_problem
from worker.control import tokens
from worker.control.pause import utc
from worker.control.tokens import FILE, Role, Token


@click.group("tokens", cls=Group)
def group() -> None:
    """Who may call the web process, beside FAILOVER_API_TOKEN, which is the operator's."""


@group.command()
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What it may do.")
@click.option("--tenant", help="With --role tenant: the client whose jobs it submits, reads and cancels.")
@click.option("--for-file", is_flag=True, help="Do not keep it in Redis: print the line for policies/tokens.yaml.")
@as_json
@click.pass_obj
def create(environment: Environment, name: str, role: str, tenant: str | None, for_file: bool, as_json: bool) -> None:
    """Create the token NAME and print it, this once: only a hash of it is kept.

    \b
    operator   everything
    reviewer   reads, answers by hand, resumes
    viewer     reads
    tenant     submits, reads and cancels the jobs of one client
    """
    in_file = {token.name for token in tokens.load_tokens(environment)}
    if name in in_file:
        raise UsageError(f"there is a token {name} in policies/{FILE} already: choose another name")
    secret = tokens.new_secret()
    token = _token(name, role, tenant, secret)
    if not for_file:
        with session.reached(environment) as (_, client):
            tokens.create(client, token)
    line = f"{name}: {json.dumps(token.model_dump(include={'role', 'tenant', 'sha256'}, exclude_none=True))}"
    if as_json:
        facts = {"name": name, "role": role, "tenant": tenant, "token": secret}
        click.echo(json.dumps({**facts, "line": line} if for_file else facts))
        return
    click.echo(secret)
    if for_file:
        session.note(f"put this line under `tokens:` in policies/{FILE}, and restart `failover serve`:\n  {line}")
    if not environment.get("FAILOVER_API_TOKEN") and not in_file and not for_file:
        session.note(
            "restart `failover serve` if it started without any token: until then it serves only its own machine"
        )


@group.command("list")
@as_json
@click.pass_obj
def list_tokens(environment: Environment, as_json: bool) -> None:
    """List the tokens in policies/tokens.yaml and in Redis. A token itself is never shown again."""
    in_file = tokens.load_tokens(environment)
    with session.reached(environment) as (_, client):
        both = [(FILE, token) for token in in_file] + [("redis", token) for token in tokens.listed(client)]
    if as_json:
        facts = [{**token.model_dump(mode="json", exclude={"sha256"}), "kept": kept} for kept, token in both]
        click.echo(json.dumps(facts, indent=2))
        return
    table = Table("token", "role", "client", "kept in", "created", box=None)
    for kept, token in both:
        created = f"{utc(token.at)} by {token.by}" if token.at else "-"
        table.add_row(*map(escape, (token.name, token.role, token.tenant or "-", kept, created)))
    session.console().print(table if both else "no token beside FAILOVER_API_TOKEN")


@group.command()
@click.argument("name")
@click.pass_obj
def revoke(environment: Environment, name: str) -> None:
    """Revoke the token NAME. Every web process refuses it within 5 seconds."""
    if name in {token.name for token in tokens.load_tokens(environment)}:
        raise UsageError(f"{name} stands in policies/{FILE}: remove its line, and restart `failover serve`")
    with session.reached(environment) as (_, client):
        tokens.revoke(client, name, who=session.who())
    click.echo(f"{name} is revoked: every web process refuses it within 5 seconds")


def _token(name: str, role: str, tenant: str | None, secret: str) -> Token:
    fields = {"name": name, "role": role, "tenant": tenant, "sha256": tokens.hash_of(secret)}
    try:
        return Token.model_validate({**fields, "by": session.who(), "at": round(time.time())})
    except ValidationError as error:
        field, what = first_problem(error)
        raise UsageError(f"{field.upper() or '--tenant'}: {what}") from None
