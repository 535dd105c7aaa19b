"""`failover doctor`: what is wrong before it costs a job, each with its fix. `--deploy` is the release phase's gate."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import click
import redis
from redis.exceptions import RedisError

from ops.local import session
from ops.options import as_json
from producer.client import DEFAULT_QUEUE
from producer.connection import check_reachable, check_safe, connect, redis_url, without_secret
from producer.environment import Environment, flag
from producer.errors import ConfigurationError, FailoverError
from producer.policy import load_policies
from worker.configuration import Configuration
from worker.control import worker_registry
from worker.control.pause import paused
from worker.money.answer_cache import load_caching
from worker.money.caps import load_budgets
from worker.notify.client_messages import load_messages
from worker.routes.policy import FILE as ROUTING_FILE
from worker.routes.route import load_addresses, load_routes

CLOCK_SECONDS = 2.0  # a webhook's signature holds for minutes, a lease for seconds
CONNECTIONS = {"worker": 4, "web": 6}  # of one process, at most
SPARE_CONNECTIONS = 10  # for one more of each
NEARLY_FULL = 0.8
WHOLE_BUDGET = 100

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `exit_code`: of the command, if it failed."""

    level: Level
    about: str
    told: str
    exit_code: int = 0


@click.command()
@click.option(
    "--deploy", is_flag=True, help="For a release phase: also what only matters on a platform; no provider is asked."
)
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
    """Everything, in the order in which it should be fixed."""
    yield from _configuration(environment, deploy=deploy)
    yield from _redis(environment, deploy=deploy)
    if not deploy:
        yield from _providers(environment)


def _wrong(about: str, error: FailoverError) -> Iterator[Finding]:
    for line in str(error).splitlines():
        yield Finding("fail", about, line, error.exit_code)


def _configuration(environment: Environment, *, deploy: bool) -> Iterator[Finding]:
    try:
        types = load_policies(environment).job_types
        yield Finding("ok", "policies", f"{len(types)} job types")
    except ConfigurationError as error:
        yield from _wrong("policies", error)
    try:
        yield Finding("ok", "messages", ", ".join(load_messages(environment)))
    except ConfigurationError as error:
        yield from _wrong("messages", error)
    try:
        routes = load_routes(environment)
        yield Finding("ok", "routes", ", ".join(route.name for route in routes.routes))
        yield from _routing(environment)
        for out in routes.left_out:
            yield Finding("warn", "routes", f"{out.name} is left out: {out.why}")
    except ConfigurationError as error:
        yield from _wrong("routes", error)
    yield from _money(environment)
    yield from _people(environment)
    yield from _web(environment, deploy=deploy)


def _routing(environment: Environment) -> Iterator[Finding]:
    """What a worker reads beside the map: how routes are chosen, and the tenants' own keys."""
    try:
        found = Configuration.load(environment)
    except ConfigurationError as error:
        files = (ROUTING_FILE, "tenants.yaml")
        new = [problem for problem in error.problems if any(name in problem.where for name in files)]
        yield from _wrong("routing", ConfigurationError(new))
        return
    orders = {name: policy.order for name, policy in found.routing.job_types.items()}
    told = ", ".join(f"{name} {order}" for name, order in orders.items()) or "as listed"
    yield Finding("ok", "routing", told)
    if found.routes.bypass:
        yield Finding("warn", "routing", "BYPASS_ROUTER is on: every job goes to the first route")
    if not found.routes.cold_queue:
        yield Finding("warn", "routing", "ENABLE_COLD_QUEUE is off: no job waits for a route")


def _money(environment: Environment) -> Iterator[Finding]:
    """Caps, prices and kept answers."""
    try:
        budgets, caching = load_budgets(environment), load_caching(environment)
    except ConfigurationError as error:
        yield from _wrong("money", error)
        return
    yield Finding("ok", "money", f"caps: {', '.join(budgets.named) or 'none (policies/budgets.yaml)'}")
    with contextlib.suppress(ConfigurationError):  # told above
        for route in load_routes(environment).routes:
            if route.price is None and budgets.wants_prices:
                fix = "give it a `price` in routes.json, or `pip install genai-prices`"
                yield Finding(
                    "fail", "money", f"{route.name} has no price, so nobody calls it under a hard cap — {fix}", 2
                )
    if kept := [name for name in caching.features if caching.of(name) is not None]:
        yield Finding("ok", "money", f"answers are kept for: {', '.join(kept)}")


def _people(environment: Environment) -> Iterator[Finding]:
    """Who would be told, and how: what a worker refuses at its start is found here first."""
    from worker.notify.settings import load_settings

    try:
        tenants = load_policies(environment).tenants
    except ConfigurationError:
        return  # told above
    try:
        settings = load_settings(environment, load_addresses(environment), tenants)
    except ConfigurationError as error:
        others = [problem for problem in error.problems if "budgets.yaml" not in problem.where]
        yield from _wrong("people", ConfigurationError(others))
        return
    who = settings.on_call.now(round(time.time() * 1000))
    told = f"on call now: {who}" if who else "nobody is on call now — name somebody in policies/oncall.yaml"
    yield Finding("ok" if who else "warn", "people", told)
    channels = [channel.name for channel in settings.channels if channel.name != "log"]
    told = ", ".join(channels) + " — `failover notify test` tries them"
    if not channels:
        told = "no channel is set up, nobody is told of anything — SLACK_BOT_TOKEN and SLACK_CHANNEL, or others (.env.example)"
    yield Finding("ok" if channels else "warn", "people", told)
    if settings.subscribers:
        yield Finding("ok", "callbacks", ", ".join(subscriber.name for subscriber in settings.subscribers))


def _web(environment: Environment, *, deploy: bool) -> Iterator[Finding]:
    from ops.web.settings import Settings

    try:
        settings = Settings.of(environment)
        if settings.guardrail.at_percent > WHOLE_BUDGET:
            told = (
                f"budgets pause at {settings.guardrail.at_percent:g}%, when all is spent — BUDGET_PAUSE_AT_PERCENT=80"
            )
            yield Finding("warn", "budget", told)
        if settings.token is not None:
            yield Finding("ok", "web", "FAILOVER_API_TOKEN is set")
        elif deploy:
            told = (
                "FAILOVER_API_TOKEN is not set, so the web process serves nobody — set it, as to `openssl rand -hex 32`"
            )
            yield Finding("fail", "web", told, 2)
        else:
            yield Finding("warn", "web", "FAILOVER_API_TOKEN is not set: `failover serve` serves this machine only")
    except ConfigurationError as error:
        yield from _wrong("web", error)


def _redis(environment: Environment, *, deploy: bool) -> Iterator[Finding]:
    try:
        url = redis_url(environment)
        if url is None:
            told = "REDIS_URL is not set: commands use an embedded Valkey, for a laptop only — point it at your Redis"
            yield Finding("fail" if deploy else "warn", "redis", told, 3 if deploy else 0)
            return
        with connect(url) as client:
            check_reachable(client, url)
            yield Finding("ok", "redis", f"{without_secret(url)} answers in {_ping_ms(client):.1f} ms")
            dangers = check_safe(client)
            allowed = flag(environment, "ALLOW_UNSAFE_REDIS", default=False)
            for danger in dangers:
                yield Finding("warn" if allowed else "fail", "redis", danger, 0 if allowed else 3)
            if not dangers:
                yield Finding("ok", "redis", "keeps jobs: persistence and noeviction")
            yield from _room(client)
            yield _clock(client)
            yield from _standing(client)
    except FailoverError as error:
        yield from _wrong("redis", error)
    except RedisError as error:
        yield Finding("fail", "redis", f"failed while it was asked: {error}", 3)


def _ping_ms(client: redis.Redis) -> float:
    began = time.monotonic()
    client.ping()
    return (time.monotonic() - began) * 1000


def _room(client: redis.Redis) -> Iterator[Finding]:
    info = client.info()
    most, used = int(info.get("maxclients", 0)), int(info.get("connected_clients", 0))
    told = f"{used} of {most} connections are used; a worker takes {CONNECTIONS['worker']}, a web process {CONNECTIONS['web']}"
    scarce = bool(most) and most - used < SPARE_CONNECTIONS
    yield Finding(
        "warn" if scarce else "ok", "connections", told + (" — start no more, or take a larger plan" if scarce else "")
    )
    limit, memory = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if limit and memory > NEARLY_FULL * limit:
        fix = "a full Redis refuses jobs: take a larger plan, or keep results for less long"
        full = memory >= limit
        told = f"{memory / limit:.0%} of {limit / 1e6:.0f} MB are used — {fix}"
        yield Finding("fail" if full else "warn", "memory", told, 3 if full else 0)


def _clock(client: redis.Redis) -> Finding:
    seconds, micros = client.time()
    off = time.time() - (int(seconds) + int(micros) / 1e6)
    if abs(off) > CLOCK_SECONDS:
        return Finding("warn", "clock", f"this machine is {off:+.1f} s beside Redis — let NTP set it")
    return Finding("ok", "clock", "agrees with Redis")


def _standing(client: redis.Redis) -> Iterator[Finding]:
    workers = worker_registry.alive(client)
    none = Finding("warn", "workers", "none runs — start `failover-worker`")
    yield Finding("ok", "workers", f"{workers} run") if workers else none
    for each in paused(client, worker_registry.queues(client, DEFAULT_QUEUE)):
        yield Finding("warn", "paused", str(each))


def _providers(environment: Environment) -> Iterator[Finding]:
    from worker.providers.connectivity import reach  # brings in the HTTP client

    try:
        routes = load_routes(environment).routes
    except ConfigurationError:
        return  # told already
    session.note(f"asking {len(routes)} routes for their models")
    answers = reach(routes)
    served = any(how == "ok" for how, _ in answers)
    for route, (how, detail) in zip(routes, answers, strict=True):
        match how:
            case "ok":
                yield Finding("ok", f"route {route.name}", f"answers ({detail})")
            case "key refused":
                yield Finding("fail", f"route {route.name}", f"refuses its key ({detail}) — correct it", 2)
            case _:
                told = f"is not reachable: {detail} — is {route.base_url} right, and the provider up?"
                others = "; others serve meanwhile" if served else ""
                yield Finding("warn" if served else "fail", f"route {route.name}", told + others, 0 if served else 3)
