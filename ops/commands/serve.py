"""`failover serve`: the web process at a terminal."""

from __future__ import annotations

import click

from ops.local import session
from producer.connection import redis_url
from producer.environment import Environment


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), envvar="PORT", default=8000, show_default=True, help="Or PORT.")
@click.option("--host", help="[default: every address with a secret configured, else this machine only]")
@click.pass_obj
def serve(environment: Environment, port: int, host: str | None) -> None:
    """Serve jobs, the budget's webhook, health and metrics over HTTP.

    FAILOVER_API_TOKEN is the bearer token; BUDGET_WEBHOOK_SECRET also signs the budget's webhook (Standard Webhooks).
    """
    from ops.web.serve import serve as run  # brings in the web framework, which other commands do without

    if url := redis_url(environment):
        run(environment, url, host, port)  # also while Redis is away: /readyz says so, and it comes back
        return
    with session.opened(environment) as here:
        session.warn_without_worker(here)
        run(environment, here.url, host, port)
