"""`failover doctor`: finds problems before they cost a job, each with its fix. `--deploy` is for a release phase."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

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
from worker.network import Network
from worker.notify.client_messages import load_messages
from worker.routes.policy import FILE as ROUTING_FILE
from worker.routes.route import Route, load_addresses, load_routes

if TYPE_CHECKING:
    from worker.providers.connectivity import Found

CLOCK_SECONDS = 2.0  # webhook signatures are valid for minutes, leases for seconds
CONNECTIONS = {"worker": 4, "web": 6}  # the most of one process
SPARE_CONNECTIONS = 10  # enough for one more worker and web process
NEARLY_FULL = 0.8
WHOLE_BUDGET = 100

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One result. `about`: what was checked; `told`: the result in words; `exit_code`: of the command, if `level` is
    fail."""

    level: Level
    about: str
    told: str
    exit_code: int = 0


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
    """The rest of a worker's configuration: the orders of routing.yaml, and the tenants' own keys."""
    try:
        found = Configuration.load(environment)
    except ConfigurationError as error:
        files = (ROUTING_FILE, "tenants.yaml")
        new = [problem for problem in error.problems if any(name in problem.where for name in files)]
        yield from _wrong("routing", ConfigurationError(new))
        return
    orders = {name: policy.order for name, policy in found.routing.job_types.items()}
    text = ", ".join(f"{name} {order}" for name, order in orders.items()) or "routes in the order of the map"
    yield Finding("ok", "routing", text)
    if found.routes.bypass:
        yield Finding("warn", "routing", "BYPASS_ROUTER is on: every job goes to the first route")
    if not found.routes.cold_queue:
        yield Finding("warn", "routing", "ENABLE_COLD_QUEUE is off: jobs do not wait for a route")


def _money(environment: Environment) -> Iterator[Finding]:
    """Caps, prices and cached answers."""
    try:
        budgets, caching = load_budgets(environment), load_caching(environment)
    except ConfigurationError as error:
        yield from _wrong("money", error)
        return
    yield Finding("ok", "money", f"caps: {', '.join(budgets.named) or 'none (policies/budgets.yaml)'}")
    with contextlib.suppress(ConfigurationError):  # reported above
        for route in load_routes(environment).routes:
            if route.price is None and budgets.wants_prices:
                fix = "give it a `price` in routes.json, or `pip install genai-prices`"
                yield Finding(
                    "fail", "money", f"{route.name} has no price, so it is not called under a hard cap — {fix}", 2
                )
    if kept := [name for name in caching.features if caching.of(name) is not None]:
        yield Finding("ok", "money", f"answers are cached for: {', '.join(kept)}")


def _people(environment: Environment) -> Iterator[Finding]:
    """Who is on call and which channels work: finds the settings that a worker refuses at its start."""
    from worker.notify.settings import load_settings

    try:
        tenants = load_policies(environment).tenants
    except ConfigurationError:
        return  # reported above
    try:
        settings = load_settings(environment, load_addresses(environment), tenants)
    except ConfigurationError as error:
        others = [problem for problem in error.problems if "budgets.yaml" not in problem.where]
        yield from _wrong("people", ConfigurationError(others))
        return
    who = settings.on_call.now(round(time.time() * 1000))
    text = f"on call now: {who}" if who else "nobody is on call now — add somebody in policies/oncall.yaml"
    yield Finding("ok" if who else "warn", "people", text)
    channels = [channel.name for channel in settings.channels if channel.name != "log"]
    text = ", ".join(channels) + " — `failover notify test` tests them"
    if not channels:
        text = "no channel is set up, so nobody gets a message — set SLACK_BOT_TOKEN and SLACK_CHANNEL, or see .env.example"
    yield Finding("ok" if channels else "warn", "people", text)
    if settings.subscribers:
        yield Finding("ok", "callbacks", ", ".join(subscriber.name for subscriber in settings.subscribers))


def _web(environment: Environment, *, deploy: bool) -> Iterator[Finding]:
    from ops.web.settings import Settings

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
        elif deploy:
            text = (
                "FAILOVER_API_TOKEN is not set, so the web process serves nobody — make one with `openssl rand -hex 32`"
            )
            yield Finding("fail", "web", text, 2)
        else:
            yield Finding("warn", "web", "FAILOVER_API_TOKEN is not set: `failover serve` serves this machine only")
    except ConfigurationError as error:
        yield from _wrong("web", error)


def _redis(environment: Environment, *, deploy: bool) -> Iterator[Finding]:
    try:
        url = redis_url(environment)
        if url is None:
            text = "REDIS_URL is not set: commands use an embedded Valkey, for a laptop only — set it to your Redis"
            yield Finding("fail" if deploy else "warn", "redis", text, 3 if deploy else 0)
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
            yield from _capacity(client)
            yield _clock(client)
            yield from _operation(client)
    except FailoverError as error:
        yield from _wrong("redis", error)
    except RedisError as error:
        yield Finding("fail", "redis", f"failed during the check: {error}", 3)


def _ping_ms(client: redis.Redis) -> float:
    began = time.monotonic()
    client.ping()
    return (time.monotonic() - began) * 1000


def _capacity(client: redis.Redis) -> Iterator[Finding]:
    info = client.info()
    most, used = int(info.get("maxclients", 0)), int(info.get("connected_clients", 0))
    text = f"{used} of {most} connections are used; a worker takes {CONNECTIONS['worker']}, a web process {CONNECTIONS['web']}"
    scarce = bool(most) and most - used < SPARE_CONNECTIONS
    yield Finding(
        "warn" if scarce else "ok", "connections", text + (" — start no more, or use a larger plan" if scarce else "")
    )
    limit, memory = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if limit and memory > NEARLY_FULL * limit:
        fix = "a full Redis refuses jobs: use a larger plan, or keep results for a shorter time"
        full = memory >= limit
        text = f"{memory / limit:.0%} of {limit / 1e6:.0f} MB are used — {fix}"
        yield Finding("fail" if full else "warn", "memory", text, 3 if full else 0)


def _clock(client: redis.Redis) -> Finding:
    seconds, micros = client.time()
    off = time.time() - (int(seconds) + int(micros) / 1e6)
    if abs(off) > CLOCK_SECONDS:
        return Finding(
            "warn", "clock", f"the clock of this machine differs from Redis by {off:+.1f} s — let NTP set it"
        )
    return Finding("ok", "clock", "agrees with Redis")


def _operation(client: redis.Redis) -> Iterator[Finding]:
    workers = worker_registry.alive(client)
    none = Finding("warn", "workers", "none runs — start `failover-worker`")
    yield Finding("ok", "workers", f"{workers} run") if workers else none
    for each in paused(client, worker_registry.queues(client, DEFAULT_QUEUE)):
        yield Finding("warn", "paused", str(each))


def _providers(environment: Environment) -> Iterator[Finding]:
    from worker.providers.connectivity import Reached, reach  # imports the HTTP client

    try:
        routes = load_routes(environment).routes
    except ConfigurationError:
        return  # reported above
    session.note(f"asking {len(routes)} routes for their models")
    try:
        network = Network.of(environment)
    except ConfigurationError as error:
        yield from _wrong("network", error)
        return
    yield Finding("ok", "network", network.in_words(routes[0].base_url))
    answers = reach(routes, network)
    served = any(found.how is Reached.OK for found in answers)
    for route, found in zip(routes, answers, strict=True):
        yield _route(route, found, served=served)


def _route(route: Route, found: Found, *, served: bool) -> Finding:
    """`served`: another route answers."""
    from worker.providers.connectivity import Reached

    about = f"route {route.name}"
    match found.how:
        case Reached.OK:
            return Finding("ok", about, f"answers ({found.detail})")
        case Reached.KEY_REFUSED:
            return Finding("fail", about, f"refuses its key ({found.detail}) — replace the key", 2)
        case Reached.NO_MODELS:
            text = f"{found.address} is not there ({found.detail}) — the path in its baseUrl is probably wrong"
            return Finding("warn", about, f"{text}, unless this gateway has no list of models")
        case Reached.LOCAL:
            text = f"cannot be asked from here: {found.detail} — this is no fault of the provider"
        case _:
            text = f"is not reachable: {found.detail} — is {route.base_url} right, and is the provider up?"
    others = "; other routes serve the jobs" if served else ""
    return Finding("warn" if served else "fail", about, text + others, 0 if served else 3)
