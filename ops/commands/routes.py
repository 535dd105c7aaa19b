"""`failover routes ...`: the routing map, how it stands, what a job would do with it; kill switches; reviews and imports."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO

import click
import redis

from ops.chat_body import body_of
from ops.local import session
from ops.options import as_json
from producer.connection import redis_url
from producer.environment import Environment
from producer.errors import ConfigurationError, UsageError
from producer.job import LLMJob
from worker.breakers import health
from worker.configuration import Configuration
from worker.control import pause as flags
from worker.control import worker_registry
from worker.control.pause import Scope
from worker.routes.route import load_routes
from worker.routes.schema import read_map

file_argument = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("routes")
def group() -> None:
    """The routing map: show, check, compare, import; switch a route off and on."""


@group.command("show")
@click.option(
    "--explain", is_flag=True, help="The plan for one job: candidates in order, and why each other one is not."
)
@click.option("--job-type", default="default", show_default=True, help="A type of policies/jobs.yaml.")
@click.option("--prompt", help="The job's message.")
@click.option("--file", "source", type=click.File("rb"), help="A prompt as text, or a chat-completions body as JSON.")
@click.option("--tenant", default="default", show_default=True, help="Whose job it is: caps go by it.")
@click.option("--user", default="", help="Whose, among the tenant's users.")
@click.option("--feature", default="", help="What it is for.")
@click.option("--job-id", default="example", show_default=True, help="Weights and canaries draw by it.")
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
    """Every route of the map: what it can, what it costs, where its key comes from, and how it stands."""
    from ops.reports import explain as views

    if prompt is not None and source is not None:
        raise UsageError("give --prompt or --file, not both")
    configuration = Configuration.load(environment, tenants_keys=False)
    with _standing(environment) as client:
        standing = views.standing(client, configuration)
    if not explain:
        rows = views.rows(configuration, standing)
        click.echo(json.dumps([asdict(row) for row in rows], indent=2) if as_json else "\n".join(views.told(rows)))
        return
    body = body_of(prompt if prompt is not None else source.read() if source else "Hello")
    whose = {"tenant_id": tenant, "user_id": user, "feature": feature}
    found = views.explained(
        configuration, standing, job_id, LLMJob.parse({"job_type": job_type, "body": body, **whose})
    )
    click.echo(json.dumps(asdict(found), indent=2) if as_json else str(found))


@contextlib.contextmanager
def _standing(environment: Environment) -> Iterator[redis.Redis | None]:
    """The Redis in which routes stand: that of REDIS_URL, or the embedded one where there is any."""
    if redis_url(environment) is None and not (session.FOLDER / "valkey").exists():
        session.note("no Redis yet (REDIS_URL is not set): how routes stand now is not known")
        yield None
        return
    with session.reached(environment) as (_, client):
        yield client


@group.command("check")
@click.option("--live", is_flag=True, help="Send a tool call and a JSON request through each warm route. It is billed.")
@click.option("--route", "only", multiple=True, help="Only this route; with --live also a hot one. Repeatable.")
@click.option(
    "--record",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="With --live: store what each route answered, without secrets, as test fixtures.",
)
@as_json
@click.pass_obj
def check(environment: Environment, live: bool, only: tuple[str, ...], record: Path | None, as_json: bool) -> None:
    """Whether each route can be used: its variables, its key, its address; with --live, its tools and its JSON."""
    from ops.reports import route_check as checks

    routes = Configuration.load(environment, tenants_keys=False).routes
    if unknown := [name for name in only if name not in routes.names]:
        raise UsageError(f"no route is named {', '.join(unknown)}; there are {', '.join(sorted(routes.names))}")
    if record is not None and not live:
        raise UsageError("--record stores what live calls are answered: add --live (the calls are billed)")
    findings = checks.check(routes, live=live, only=only, record=record)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(str(finding))
    sys.exit(1 if any(finding.level == "fail" for finding in findings) else 0)


@group.command("diff")
@click.argument("before", type=file_argument)
@click.argument("after", type=file_argument)
@as_json
def diff(before: Path, after: Path, as_json: bool) -> None:
    """What changes for jobs from one map to another, in words. Exit 0: nothing; 1: something; 2: one cannot be read."""
    from ops.reports.route_diff import compare

    changes = compare(read_map(before), read_map(after))
    if as_json:
        click.echo(json.dumps([asdict(change) for change in changes], indent=2))
    else:
        click.echo("\n".join(change.told for change in changes) or "no difference")
    sys.exit(1 if changes else 0)


@group.command("disable")
@click.argument("route")
@click.option("--reason", default="", help="Why; shown to everybody who looks.")
@click.option("--for", "lasts", metavar="AGE", help="Enable it again by itself after 90m, 12h, 7d.")
@click.pass_obj
def disable(environment: Environment, route: str, reason: str, lasts: str | None) -> None:
    """The kill switch of a route: within a second no worker starts an attempt on it. Running ones end."""
    seconds = session.age_seconds("--for", lasts) if lasts else None
    with session.reached(environment) as (_, client):
        _require_known(client, environment, route)
        flag = flags.pause(client, Scope(route=route), who=session.who(), why=reason, seconds=seconds)
        disabled = _disabled(client)
        left = [name for name in worker_registry.usable(worker_registry.views(client)) if name not in disabled]
        workers = worker_registry.alive(client)
    until = f" until {flags.utc(flag.until)}" if flag.until else ""
    click.echo(f"disabled {route}{until}; `failover routes enable {route}` takes it back")
    if workers and not left:
        session.note("no route is left: jobs wait, and grow old meanwhile. `failover pause` keeps them from that")


@group.command("enable")
@click.argument("route")
@click.pass_obj
def enable(environment: Environment, route: str) -> None:
    """Take a route back: clear its kill switch, close its breaker, end its rest (a quota, a key, a bill that was fixed)."""
    with session.reached(environment) as (_, client):
        _require_known(client, environment, route)
        told = ["it was disabled"] if flags.resume(client, Scope(route=route), who=session.who()) else []
        told += health.restore(client, route, who=session.who())
        closed = [str(flag) for flag in flags.paused(client, []) if flag.closes(route, _provider(client, route))]
    click.echo(f"enabled {route}: {', '.join(told) or 'nothing kept it'}")
    for flag in closed:
        session.note(f"still closed: {flag}")


@group.command("import")
@click.argument("source", type=file_argument)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Else it is printed.")
@click.option("--model", help="Of several aliases (`model_name`), the one to import.")
@click.option("--force", is_flag=True, help="Write over a file that exists.")
def import_(source: Path, output: Path | None, model: str | None, force: bool) -> None:
    """Read a LiteLLM config and write the routing map that does the same; what has no counterpart is listed."""
    from ops.importers.litellm import imported

    found = imported(source, model)
    text = json.dumps(found.routes, indent=2) + "\n"
    for note in found.notes:
        session.note(note)
    if output is None:
        click.echo(text, nl=False)
        return
    if output.exists() and not force:
        raise UsageError(f"{output} exists: --force writes over it")
    output.write_text(text, encoding="utf-8")
    session.note(f"{found.count} routes -> {output}; `ROUTES_FILE={output} failover routes check` tries it")


def _require_known(client: redis.Redis, environment: Environment, route: str) -> None:
    """A typo must not pass for a kill switch. What the workers know needs no file, which may be what is broken."""
    known = {each["route"] for view in worker_registry.views(client) for each in view["routes"]} | _disabled(client)
    if route in known:
        return
    try:
        known |= load_routes(environment).names
    except ConfigurationError as error:
        session.note(f"routes.json cannot be used here: {error}")
    if route not in known:
        raise UsageError(f"no route is named {route!r}; there are {', '.join(sorted(known)) or 'none that are known'}")


def _disabled(client: redis.Redis) -> set[str]:
    return {flag.route for flag in flags.paused(client, []) if flag.route is not None}


def _provider(client: redis.Redis, route: str) -> str:
    routes = (each for view in worker_registry.views(client) for each in view["routes"] if each["route"] == route)
    return next((str(each["provider"]) for each in routes if "provider" in each), "")
