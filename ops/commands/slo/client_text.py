"""`failover slo page` and `failover slo sow`: what clients are shown before they sign."""

from __future__ import annotations

import click

from ops.local import session
from ops.reports.slo.client_text import Facts, gather
from ops.reports.slo.client_text import page as page_text
from ops.reports.slo.client_text import sow as sow_text
from producer.environment import Environment
from worker.objectives.policy import load_slo_policy
from worker.queue.dead_letters import now_ms

for_tenant = click.option("--tenant", default="", help="For this client, with its own targets and figures.")


@click.command()
@for_tenant
@click.pass_obj
def page(environment: Environment, tenant: str) -> None:
    """Write the one-pager for clients as Markdown: targets, how they are measured, the error budget."""
    click.echo(page_text(_facts(environment, tenant)), nl=False)


@click.command()
@for_tenant
@click.pass_obj
def sow(environment: Environment, tenant: str) -> None:
    """Write the reliability clause of a contract as Markdown."""
    click.echo(sow_text(_facts(environment, tenant)), nl=False)


def _facts(environment: Environment, tenant: str) -> Facts:
    policy = load_slo_policy(environment)
    with session.reached(environment) as (_, client):
        return gather(client, policy, now_ms(client), tenant)
