"""`failover cache ...`: the cached answers."""

from __future__ import annotations

import json

import click

from ops.local import session
from ops.options import Group, as_json
from producer.environment import Environment
from producer.errors import UsageError
from worker.humanize import many
from worker.money import answer_cache


@click.group("cache", cls=Group)
def group() -> None:
    """The answer cache (policies/cache.yaml)."""


@group.command()
@as_json
@click.pass_obj
def show(environment: Environment, as_json: bool) -> None:
    """Show which features are cached, and the number of cached answers."""
    caching = answer_cache.load_caching(environment)
    features = {name: policy.ttl_seconds for name, policy in caching.features.items() if policy.ttl_seconds}
    with session.reached(environment) as (_, client):
        count = len({key for page in answer_cache.kept(client, None, None) for key in page})
    if as_json:
        click.echo(json.dumps({"kept": count, "ttl_seconds": features}))
        return
    for name, seconds in features.items():
        click.echo(f"{name}: cached for {seconds} s")
    if not features:
        click.echo("no feature is cached: set ttl_seconds for one in policies/cache.yaml")
    click.echo(f"{many(count, 'answer')} cached")


@group.command()
@click.option("--tenant", help="Only those of this tenant.")
@click.option("--feature", help="Only those of this feature.")
@click.option("--all", "everything", is_flag=True, help="All cached answers.")
@click.pass_obj
def purge(environment: Environment, tenant: str | None, feature: str | None, everything: bool) -> None:
    """Delete cached answers at once."""
    if everything == bool(tenant is not None or feature is not None):
        raise UsageError("give --tenant T, --feature F or both; or --all")
    with session.reached(environment) as (_, client):
        deleted = answer_cache.purge(client, tenant, feature)
    click.echo(f"{many(deleted, 'answer')} deleted")
