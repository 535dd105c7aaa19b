"""`failover pause` and `failover resume`: set and clear the pause flags."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import click
import redis

from ops.local import session
from ops.options import as_json
from producer import keyspace
from producer.client import DEFAULT_QUEUE
from producer.environment import Environment
from producer.errors import UsageError
from worker.control import pause as flags
from worker.control import worker_registry
from worker.control.pause import Scope
from worker.money import billing_alerts
from worker.money.billing_alerts import Guardrail
from worker.queue import fair_queue
from worker.routes.names import canonical

queue_option = click.option("--queue", help="Only this queue.")
provider_option = click.option("--provider", help="Only the routes of this provider.")
tenant_option = click.option("--tenant", help="Only the jobs of this client.")


def _scope(queue: str | None, provider: str | None, tenant: str | None) -> Scope:
    given = [name for name in (queue, provider, tenant) if name is not None]
    if len(given) > 1:
        raise UsageError("give one of --queue, --provider and --tenant: they are separate flags")
    if "" in given:
        raise UsageError("--queue, --provider and --tenant need a name")
    return Scope(queue, provider, tenant=tenant)


@click.command()
@click.option("--reason", default="", help="Why; shown in `failover status`.")
@queue_option
@provider_option
@tenant_option
@click.option("--for", "lasts", metavar="AGE", help="Resume automatically after a time such as 90m, 12h or 7d.")
@click.pass_obj
def pause(
    environment: Environment,
    reason: str,
    queue: str | None,
    provider: str | None,
    tenant: str | None,
    lasts: str | None,
) -> None:
    """Start no more jobs. Running jobs end; nothing is lost, and neither attempts nor expiry times are used up."""
    scope = _scope(queue, provider, tenant)
    seconds = session.age_seconds("--for", lasts) if lasts else None
    with session.reached(environment) as (_, client):
        if queue and not client.sismember(keyspace.QUEUES, keyspace.queue(queue)):
            session.note(f"no job was ever in a queue {queue}: is the name right?")
        if provider and (known := worker_registry.providers(client)) and canonical(provider) not in known:
            session.note(
                f"no worker has a route of provider {canonical(provider)}; their providers: {', '.join(known)}"
            )
        if tenant and not any(fair_queue.waiting_of(client, name, tenant) for name in _queues(client)):
            session.note(f"no job of {tenant} waits now: is the name right?")
        paused = flags.pause(client, scope, who=session.who(), why=reason, seconds=seconds)
    until = f" until {flags.utc(paused.until)}" if paused.until else ""
    click.echo(f"paused {scope}{until}; `failover resume{scope.option}` resumes it")
    if (paused.who, paused.why) != (session.who(), reason) or (seconds and not paused.until):
        session.note(f"it was paused already; the pause is now: {paused}")


@click.command()
@queue_option
@provider_option
@tenant_option
@click.option("--dry-run", is_flag=True, help="Only show how many jobs would start, their cost and the duration.")
@click.option(
    "--pause-again-at",
    "again_at",
    type=click.FloatRange(min=0, min_open=True),
    metavar="PERCENT",
    help="Budgets reported by billing (or only --provider's) pause again only at this share, until their month ends.",
)
@as_json
@click.pass_obj
def resume(
    environment: Environment,
    queue: str | None,
    provider: str | None,
    tenant: str | None,
    dry_run: bool,
    again_at: float | None,
    as_json: bool,
) -> None:
    """Clear the pause flag. The backlog then drains automatically, slowly at first. Flags that stay set are listed."""
    scope = _scope(queue, provider, tenant)
    if again_at is not None:
        _require_share(environment, scope, again_at)
    with session.reached(environment) as (_, client):
        if again_at is not None:
            _require_above_used(client, scope, again_at)
        if dry_run:
            from worker.reports import backlog

            found = backlog.estimate(client, scope, DEFAULT_QUEUE)
            click.echo(json.dumps(asdict(found), indent=2) if as_json else str(found))
            return
        cleared = flags.resume(client, scope, who=session.who(), again_at=again_at)
        left = flags.paused(client, _queues(client))
        resumed_budgets = [
            each.provider for each in billing_alerts.known(client) if again_at is not None and each.again_at == again_at
        ]
    if as_json:
        report = {"resumed": [str(each) for each in cleared], "still_paused": [asdict(flag) for flag in left]}
        click.echo(json.dumps(report, indent=2))
        return
    nothing = "everything was not paused" if scope == flags.EVERYTHING else f"{scope} was not paused"
    click.echo(f"resumed {', '.join(map(str, cleared))}" if cleared else nothing)
    if again_at is not None:
        again = f"budgets pause again at {again_at:g}%: {', '.join(resumed_budgets)}"
        click.echo(again if resumed_budgets else "billing has reported no such budget yet, so no budget was resumed")
    for flag in left:
        session.note(f"still paused: {flag}")


def _queues(client: redis.Redis) -> list[str]:
    return worker_registry.queues(client, DEFAULT_QUEUE)


def _require_share(environment: Environment, scope: Scope, again_at: float) -> None:
    at = Guardrail.of(environment).at_percent
    if scope.queue is not None or scope.tenant is not None:
        raise UsageError("--pause-again-at: only providers report a budget; leave --queue and --tenant out")
    if not at < again_at < math.inf:
        larger = billing_alerts.share_above(at)
        raise UsageError(
            f"--pause-again-at {again_at:g}: budgets pause at {at:g}%; give a larger share, such as {larger}"
        )


def _require_above_used(client: redis.Redis, scope: Scope, again_at: float) -> None:
    """Raises UsageError for a share that the next report would exceed at once."""
    budgets = [known for known in billing_alerts.known(client) if scope.provider in (None, known.provider)]
    most = max(budgets, key=lambda known: known.percent, default=None)
    if most is not None and again_at <= most.percent:
        larger = billing_alerts.share_above(most.percent)
        what = f"{most} has used {most.percent:g}% already, and its next report would pause again"
        raise UsageError(f"--pause-again-at {again_at:g}: {what}; give a larger share, such as {larger}")
