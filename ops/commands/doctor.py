"""`failover doctor`: finds problems before they cost a job, each with its fix. `--deploy` is for a release phase."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

import click
from redis.exceptions import RedisError

from ops.local import session
from ops.options import as_json
from ops.reports.checks.configuration import check_configuration
from ops.reports.checks.finding import Finding, wrong
from ops.reports.checks.growth import check_growth
from ops.reports.checks.providers import check_providers
from ops.reports.checks.redis_server import check_redis
from ops.reports.checks.routes_in_use import check_routes_in_use
from producer.environment import Environment
from producer.errors import ConfigurationError, FailoverError
from worker.control import tokens

WHOLE_BUDGET = 100


@click.command()
@click.option("--deploy", is_flag=True, help="For a release phase: also what only a platform needs; calls no provider.")
@as_json
@click.pass_obj
def doctor(environment: Environment, deploy: bool, as_json: bool) -> None:
    """Check configuration, Redis, keys, routes and clock. Changes nothing, and makes no billed call."""
    findings = []
    for finding in examine(environment, deploy=deploy):
        findings.append(finding)
        if not as_json:
            click.echo(f"{finding.level:5} {finding.about}: {finding.told}")
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    sys.exit(max((finding.exit_code for finding in findings), default=0))


def examine(environment: Environment, *, deploy: bool) -> Iterator[Finding]:
    """All findings, in the order in which to fix them."""
    yield from check_configuration(environment)
    yield from _web(environment, deploy=deploy)
    yield from check_redis(environment, deploy=deploy)
    yield from check_growth(environment)
    if not deploy:
        yield from check_providers(environment)
        yield from check_routes_in_use(environment)


def _redis_tokens(environment: Environment) -> bool:
    with (
        contextlib.suppress(FailoverError, RedisError),
        session.existing(environment) as client,
    ):  # check_redis reports it
        return client is not None and bool(tokens.listed(client))
    return False


def _web(environment: Environment, *, deploy: bool) -> Iterator[Finding]:
    from ops.web.settings import Settings  # takes half a second

    try:
        settings = Settings.of(environment)
        if settings.guardrail.at_percent > WHOLE_BUDGET:
            text = (
                f"jobs pause at {settings.guardrail.at_percent:g}%, after the whole budget is spent — "
                "set BUDGET_PAUSE_AT_PERCENT=80"
            )
            yield Finding("warn", "budget", text)
        if settings.token is not None:
            yield Finding("ok", "web", "FAILOVER_API_TOKEN is set")
        elif settings.tokens or _redis_tokens(environment):
            yield Finding("ok", "web", "FAILOVER_API_TOKEN is not set; further tokens are: `failover tokens list`")
        elif deploy:
            text = (
                "FAILOVER_API_TOKEN is not set, so the web process serves nobody — make one with `openssl rand -hex 32`"
            )
            yield Finding("fail", "web", text, 2)
        else:
            yield Finding("warn", "web", "FAILOVER_API_TOKEN is not set: `failover serve` serves this machine only")
    except ConfigurationError as error:
        yield from wrong("web", error)
