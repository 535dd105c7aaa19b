"""`failover pause` and `failover resume`: the flags at a terminal."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ops import place
from ops.job import as_json
from producer import keyspace
from producer.environment import Environment
from producer.errors import UsageError
from worker import pause as flags
from worker.pause import Scope

queue_option = click.option("--queue", help="Only this queue.")
provider_option = click.option("--provider", help="Only the routes of this provider; others go on serving.")


def _scope(queue: str | None, provider: str | None) -> Scope:
    if queue is not None and provider is not None:
        raise UsageError("give --queue or --provider, not both: they are flags of their own")
    if "" in (queue, provider):
        raise UsageError("--queue and --provider want a name")
    return Scope(queue, provider)


@click.command()
@click.option("--reason", default="", help="Why; shown to everybody who looks.")
@queue_option
@provider_option
@click.option("--for", "lasts", metavar="AGE", help="Resume by itself after 90m, 12h, 7d.")
@click.pass_obj
def pause(environment: Environment, reason: str, queue: str | None, provider: str | None, lasts: str | None) -> None:
    """Start no more jobs. Running ones end; nothing is lost, no attempt and no expiry is burned."""
    scope = _scope(queue, provider)
    seconds = place.age_seconds("--for", lasts) if lasts else None
    with place.opened(environment) as here:
        client = here.producer.client
        if queue and not client.sismember(keyspace.QUEUES, keyspace.queue(queue)):
            place.note(f"no job was ever in a queue {queue}: mistyped?")
        if provider and flags.canonical(provider) not in (known := place.providers(client)):
            place.note(f"no worker has a route of provider {provider} ({', '.join(known) or 'none runs'}): mistyped?")
        flags.pause(client, scope, who=place.who(), why=reason, seconds=seconds)
    click.echo(f"paused {scope}; `failover resume{_option(scope)}` starts it again")


@click.command()
@queue_option
@provider_option
@click.option("--dry-run", is_flag=True, help="Only tell how many jobs would start, their cost, and how long it takes.")
@click.option(
    "--pause-again-at",
    "again_at",
    type=click.FloatRange(min=0, min_open=True),
    metavar="PERCENT",
    help="No budget pauses below this share of it, until its month is over.",
)
@as_json
@click.pass_obj
def resume(
    environment: Environment,
    queue: str | None,
    provider: str | None,
    dry_run: bool,
    again_at: float | None,
    as_json: bool,
) -> None:
    """Clear the pause flag; the backlog drains by itself, at first slowly. Other flags that are set stay."""
    scope = _scope(queue, provider)
    with place.opened(environment) as here:
        client = here.producer.client
        if dry_run:
            from ops import backlog

            found = backlog.estimate(client, scope, here.producer.queue)
            click.echo(json.dumps(asdict(found), indent=2) if as_json else str(found))
            return
        cleared = flags.resume(client, scope, who=place.who(), again_at=again_at)
        left = flags.paused(client, [here.producer.queue])
    if as_json:
        told = {"resumed": [str(each) for each in cleared], "still_paused": [asdict(flag) for flag in left]}
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"resumed {', '.join(map(str, cleared))}" if cleared else f"{scope} was not paused")
    for flag in left:
        place.note(f"still paused: {flag}")


def _option(scope: Scope) -> str:
    if scope.provider is not None:
        return f" --provider {scope.provider}"
    return f" --queue {scope.queue}" if scope.queue is not None else ""
