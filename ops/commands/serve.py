"""`failover serve`: starts the web process."""

from __future__ import annotations

import click

from ops.local import session
from ops.options import port_option
from producer.connection import redis_url
from producer.environment import Environment


@click.command()
@port_option(0)
@click.option("--host", help="[default: every address if a secret is configured, else this machine only]")
@click.pass_obj
def serve(environment: Environment, port: int, host: str | None) -> None:
    """Serve jobs, the budget webhook, health and metrics over HTTP.

    FAILOVER_API_TOKEN is the bearer token; BUDGET_WEBHOOK_SECRET verifies signed budget webhooks (Standard Webhooks).
    """
    from ops.web.serve import serve as run  # imports the web framework, which other commands do not need

    if url := redis_url(environment):
        run(environment, url, host, port)  # also while Redis is down: /readyz reports it until Redis is back
        return
    with session.opened(environment) as active:
        session.warn_without_worker(active)
        run(environment, active.url, host, port)
