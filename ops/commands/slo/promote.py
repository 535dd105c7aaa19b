"""`failover slo promote`: the gate between a canary and all jobs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click
from rich.markup import escape
from rich.table import Table

from ops.local import session
from ops.options import as_json
from ops.reports.slo.promotion import gather, judge
from ops.reports.slo.state import state
from producer.client import DEFAULT_QUEUE
from producer.environment import Environment
from worker.control import worker_registry
from worker.notify.objectives.follow import frozen
from worker.objectives.policy import load_slo_policy
from worker.queue.dead_letters import now_ms

DAY_MS = 86_400_000
HOLDS = {True: "[green]ok[/green]", False: "[red]no[/red]"}


@click.command()
@click.argument("route")
@click.option(
    "--samples", default=200, show_default=True, type=click.IntRange(20, 2000), help="Answers that it must have."
)
@as_json
@click.pass_obj
def promote(environment: Environment, route: str, samples: int, as_json: bool) -> None:
    """Whether a route that was tried as a canary may take all jobs. Exit code 1: it may not. It changes nothing."""
    policy = load_slo_policy(environment)
    with session.opened(environment) as active:
        client = active.producer.client
        now, queues = now_ms(client), worker_registry.queues(client, DEFAULT_QUEUE)
        trial = gather(active.producer, queues, route, samples, now)
        (of_all, *_) = state(client, policy, now - policy.window_days * DAY_MS, now).scopes
        checks = judge(trial, policy, of_all, frozen(client), samples)
    holds = all(check.holds for check in checks)
    if as_json:
        click.echo(json.dumps({"route": route, "promote": holds, "checks": [asdict(check) for check in checks]}))
        sys.exit(0 if holds else 1)
    table = Table("check", "", "figures", box=None)
    for check in checks:
        table.add_row(check.name, HOLDS[check.holds], escape(check.told))
    session.console().print(table)
    verdict = "may take all jobs: remove its `canary` in routes.json" if holds else "stays a canary"
    click.echo(f"{route} {verdict}")
    sys.exit(0 if holds else 1)
