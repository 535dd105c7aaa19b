"""`failover routes ...`: show, check, compare and import the routing map; switch routes off and on."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

import click
import redis
from redis.exceptions import RedisError

from ops.chat_body import body_of
from ops.importers.command import import_
from ops.local import session
from ops.options import Group, as_json
from producer.connection import connect, redis_url
from producer.environment import Environment
from producer.errors import ConfigurationError, UsageError
from producer.job import LLMJob
from worker.breakers import health
from worker.configuration import Configuration
from worker.control import pause as flags
from worker.control import worker_registry
from worker.control.pause import Scope
from worker.notify.objectives.follow import frozen
from worker.routes.known_providers import keys_found, map_for
from worker.routes.route import load_routes
from worker.routes.schema import read_map

file_argument = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("routes", cls=Group)
def group() -> None:
    """The routing map: show, check, compare, import; switch a route off and on."""


@group.command("show")
@click.option(
    "--explain", is_flag=True, help="The plan for one job: the candidates in order, and why other routes are not used."
)
@click.option("--job-type", default="default", show_default=True, help="A type of policies/jobs.yaml.")
@click.option("--prompt", help="The job's message.")
@click.option("--file", "source", type=click.File("rb"), help="A prompt as text, or a chat-completions body as JSON.")
@click.option("--tenant", default="default", show_default=True, help="The client of the job; caps depend on it.")
@click.option("--user", default="", help="The user of that client.")
@click.option("--feature", default="", help="What the job is for.")
@click.option("--job-id", default="example", show_default=True, help="Weights and canaries choose by it.")
@as_json
@click.pass_obj
def show(
    environment: Environment,
    explain: bool,
    job_type: str,
    prompt: str | None,
    source: IO[bytes] | None,
    tenant: str,
    user: str,
    feature: str,
    job_id: str,
    as_json: bool,
) -> None:
    """Show every route of the map: its capabilities, price, key source and state."""
    from ops.reports import explain as views

    if prompt is not None and source is not None:
        raise UsageError("give --prompt or --file, not both")
    configuration = Configuration.load(environment, tenants_keys=False)
    with session.existing(environment) as client:
        if client is None:
            session.note("no Redis yet (REDIS_URL is not set): the state of the routes is unknown")
        standing = views.standing(client, configuration)
    if not explain:
        rows = views.rows(configuration, standing)
        click.echo(json.dumps([asdict(row) for row in rows], indent=2) if as_json else "\n".join(views.lines(rows)))
        return
    body = body_of(prompt if prompt is not None else source.read() if source else "Hello")
    whose = {"tenant_id": tenant, "user_id": user, "feature": feature}
    found = views.explained(
        configuration, standing, job_id, LLMJob.parse({"job_type": job_type, "body": body, **whose})
    )
    click.echo(json.dumps(asdict(found), indent=2) if as_json else str(found))


@group.command("init")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Default: ROUTES_FILE, else routes.json."
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.pass_obj
def init(environment: Environment, output: Path | None, force: bool) -> None:
    """Write a routing map for the API keys that are in the environment: each provider's own endpoint and models."""
    found = keys_found(environment)
    path = output or Path(environment.get("ROUTES_FILE") or "routes.json")
    if path.exists() and not force:
        raise UsageError(f"{path} exists: --force overwrites it, or `-o FILE` writes another one for ROUTES_FILE")
    try:
        path.write_text(json.dumps(map_for(found, environment), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    chosen = read_map(path)
    for tier, entries in (("hot", chosen.hot), ("warm", chosen.warm)):
        for entry in entries:
            click.echo(f"{tier:4} {entry.provider}/{entry.model}  key: {entry.api_key_env}")
    usual = path == Path(environment.get("ROUTES_FILE") or "routes.json")
    prefix = "" if usual else f"ROUTES_FILE={path} "
    click.echo(
        f"written to {path}. Next:\n  {prefix}failover routes check\n  {prefix}failover submit --wait 30 --prompt Hello"
    )


@group.command("check")
@click.option("--live", is_flag=True, help="Send a tool call and a JSON request to each warm route: billed.")
@click.option("--route", "only", multiple=True, help="Only this route, with --live also a hot one. Repeatable.")
@click.option(
    "--record",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="With --live: store what each route answered, without secrets, as test fixtures.",
)
@as_json
@click.pass_obj
def check(environment: Environment, live: bool, only: tuple[str, ...], record: Path | None, as_json: bool) -> None:
    """Check that each route can be used: its variables, its key, its address; with --live, its tools and its JSON."""
    from ops.reports import route_check as checks

    configuration = Configuration.load(environment, tenants_keys=False)
    routes = configuration.routes
    if unknown := [name for name in only if name not in routes.names]:
        raise UsageError(f"no route is named {', '.join(unknown)}; known routes: {', '.join(sorted(routes.names))}")
    if record is not None and not live:
        raise UsageError("--record stores what live calls are answered: add --live (the calls are billed)")
    findings = checks.check(configuration, live=live, only=only, record=record)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(str(finding))
    sys.exit(1 if any(finding.level == "fail" for finding in findings) else 0)


@group.command("diff")
@click.argument("before", type=file_argument)
@click.argument("after", type=file_argument)
@click.option(
    "--despite-freeze", is_flag=True, help="Compare although launches are frozen (policies/slo.yaml: follow)."
)
@as_json
@click.pass_obj
def diff(environment: Environment, before: Path, after: Path, despite_freeze: bool, as_json: bool) -> None:
    """Print what changes for jobs from one map to another. Exit code 0: nothing; 1: something; 2: a map cannot be read, or
    launches are frozen, because the error budget burns (asked only where REDIS_URL is set and answers)."""
    from ops.reports.route_diff import compare

    changes = compare(read_map(before), read_map(after))
    if changes and not despite_freeze and (why := _frozen(environment)):
        raise UsageError(f"launches are frozen: {why}. When it is over, or with --despite-freeze, the change is shown")
    if as_json:
        click.echo(json.dumps([asdict(change) for change in changes], indent=2))
    else:
        click.echo("\n".join(change.told for change in changes) or "no difference")
    sys.exit(1 if changes else 0)


def _frozen(environment: Environment) -> str:
    """Why launches are frozen; "" if they are not, or nobody knows: maps are compared without Redis, too."""
    if (url := redis_url(environment)) is None:
        return ""
    try:
        with connect(url) as client:
            return frozen(client)
    except (RedisError, OSError):
        session.note("Redis is not reachable, so nobody knows whether launches are frozen")
        return ""


@group.command("disable")
@click.argument("route")
@click.option("--reason", default="", help="Why; shown in `failover status`.")
@click.option("--for", "lasts", metavar="AGE", help="Enable it automatically after a time such as 90m, 12h or 7d.")
@click.pass_obj
def disable(environment: Environment, route: str, reason: str, lasts: str | None) -> None:
    """The kill switch of a route: within a second no worker starts an attempt on it. Running attempts end."""
    seconds = session.age_seconds("--for", lasts) if lasts else None
    with session.reached(environment) as (_, client):
        _require_known(client, environment, route)
        flag = flags.pause(client, Scope(route=route), who=session.who(), why=reason, seconds=seconds)
        disabled = _disabled(client)
        left = [name for name in worker_registry.usable(worker_registry.views(client)) if name not in disabled]
        workers = worker_registry.alive(client)
    until = f" until {flags.utc(flag.until)}" if flag.until else ""
    click.echo(f"disabled {route}{until}; `failover routes enable {route}` enables it again")
    if workers and not left:
        session.note("no route is left: jobs wait, and may expire. `failover pause` stops their expiry times")


@group.command("enable")
@click.argument("route")
@click.pass_obj
def enable(environment: Environment, route: str) -> None:
    """Use a route again: clear its kill switch, close its breaker, end its cooldown (after a quota, key or bill was
    fixed)."""
    with session.reached(environment) as (_, client):
        _require_known(client, environment, route)
        changes = ["it was disabled"] if flags.resume(client, Scope(route=route), who=session.who()) else []
        changes += health.restore(client, route, who=session.who())
        closed = [str(flag) for flag in flags.paused(client, []) if flag.closes(route, _provider(client, route))]
    click.echo(f"enabled {route}: {', '.join(changes) or 'it was in use already'}")
    for flag in closed:
        session.note(f"still not used: {flag}")


group.add_command(import_)


def _require_known(client: redis.Redis, environment: Environment, route: str) -> None:
    """Raises UsageError for an unknown route, so that a typo is no kill switch. Asks the workers first: files may be
    broken."""
    known = {each["route"] for view in worker_registry.views(client) for each in view["routes"]} | _disabled(client)
    if route in known:
        return
    try:
        known |= load_routes(environment).names
    except ConfigurationError as error:
        session.note(f"routes.json cannot be used here: {error}")
    if route not in known:
        raise UsageError(f"no route is named {route!r}; known routes: {', '.join(sorted(known)) or 'none'}")


def _disabled(client: redis.Redis) -> set[str]:
    return {flag.route for flag in flags.paused(client, []) if flag.route is not None}


def _provider(client: redis.Redis, route: str) -> str:
    routes = (each for view in worker_registry.views(client) for each in view["routes"] if each["route"] == route)
    return next((str(each["provider"]) for each in routes if "provider" in each), "")
