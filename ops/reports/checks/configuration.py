"""What the doctor finds in the files and the environment."""

from __future__ import annotations

import contextlib
import difflib
import time
from collections.abc import Iterator

from ops.reports.checks.finding import Finding, wrong
from producer.environment import Environment
from producer.errors import ConfigurationError
from producer.policy import load_policies
from worker.configuration import Configuration
from worker.history.archive import VARIABLE, archive_of
from worker.history.policy import load_history_policy
from worker.machine import DEFAULT_SLOTS, Machine
from worker.money.answer_cache import load_caching
from worker.money.caps import load_budgets
from worker.notify.client_messages import load_messages
from worker.objectives.policy import load_slo_policy
from worker.routes.known_providers import known_providers
from worker.routes.policy import FILE as ROUTING_FILE
from worker.routes.route import Routes, load_addresses, load_routes
from worker.routing.call_time import cut_routes


def check_configuration(environment: Environment) -> Iterator[Finding]:
    """Files, money and people. Calls nobody."""
    try:
        types = load_policies(environment).job_types
        yield Finding("ok", "policies", f"{len(types)} job types")
    except ConfigurationError as error:
        yield from wrong("policies", error)
    try:
        yield Finding("ok", "messages", ", ".join(load_messages(environment)))
    except ConfigurationError as error:
        yield from wrong("messages", error)
    try:
        routes = load_routes(environment)
        yield Finding("ok", "routes", ", ".join(route.name for route in routes.routes))
        yield from _routing(environment)
        if routes.built_in:
            yield Finding("warn", "routes", routes.built_in_words)
        for out in routes.left_out:
            yield Finding("warn", "routes", f"{out.name} is left out: {out.why}")
        yield from _unread_keys(environment, routes)
    except ConfigurationError as error:
        yield from wrong("routes", error)
    yield from _money(environment)
    yield from _history(environment)
    yield from _objectives(environment)
    yield from _people(environment)
    yield from _machine(environment)


def _history(environment: Environment) -> Iterator[Finding]:
    """How many ledger rows stay in Redis, and where older ones go."""
    try:
        kept, archive = load_history_policy(environment).ledger, archive_of(environment)
    except ConfigurationError as error:
        yield from wrong("history", error)
        return
    older = f"older ones are written to {VARIABLE}" if archive else f"older ones are not kept ({VARIABLE} is not set)"
    yield Finding("ok", "history", f"{kept.rows:,} ledger rows stay in Redis, {older}")


def _objectives(environment: Environment) -> Iterator[Finding]:
    """What clients were promised, if anything is."""
    try:
        policy = load_slo_policy(environment)
    except ConfigurationError as error:
        yield from wrong("objectives", error)
        return
    if policy.promises:
        targets = [f"{name} {value:g}" for name, value in policy.targets if value is not None]
        own = len(policy.features) + len(policy.tenants)
        more = [f"targets of their own: {own:,} features and tenants"] if own else []
        yield Finding("ok", "objectives", ", ".join([*targets, *more]))


def _machine(environment: Environment) -> Iterator[Finding]:
    """How many jobs a worker on this machine runs at once."""
    try:
        machine = Machine.of(environment)
    except ConfigurationError as error:
        yield from wrong("machine", error)
        return
    slots, why = machine.slots(DEFAULT_SLOTS)
    text = f"{machine.told()}; {machine.descriptors:,} open files"
    yield Finding("warn" if why else "ok", "machine", f"only {slots} jobs at once: {why}" if why else text)


def _unread_keys(environment: Environment, routes: Routes) -> Iterator[Finding]:
    """Keys of known providers that no route uses, and names that look like one of them, misspelt."""
    read = {key.source.split("#")[0].rpartition(" ")[2] for route in routes.routes for key in route.keys}  # `.env NAME`
    known = {variable for provider in known_providers() for variable in provider.variables}
    for provider in known_providers():
        variables = [name for name in provider.variables if environment.get(name, "").strip()]
        if variables and not read.intersection(provider.variables):
            fix = "add a route for it to routes.json, or `failover routes init` writes a new map"
            yield Finding("warn", "keys", f"{variables[0]} is set, but no route reads it — {fix}")
    for name in sorted(environment):
        if name in known | read or not name.upper().endswith(("KEY", "TOKEN")) or not environment[name].strip():
            continue
        if close := difflib.get_close_matches(name.upper(), known, 1, 0.88):
            yield Finding("warn", "keys", f"{name} is set, but nobody reads it — is it {close[0]}, misspelt?")


def _routing(environment: Environment) -> Iterator[Finding]:
    """The rest of a worker's configuration: the orders of routing.yaml, and the tenants' own keys."""
    try:
        found = Configuration.load(environment)
    except ConfigurationError as error:
        files = (ROUTING_FILE, "tenants.yaml")
        new = [problem for problem in error.problems if any(name in problem.where for name in files)]
        yield from wrong("routing", ConfigurationError(new))
        return
    orders = {name: policy.order for name, policy in found.routing.job_types.items()}
    text = ", ".join(f"{name} {order}" for name, order in orders.items()) or "routes in the order of the map"
    yield Finding("ok", "routing", text)
    if found.routes.bypass:
        yield Finding("warn", "routing", "BYPASS_ROUTER is on: every job goes to the first route")
    deadlines = {name: policy.deadline_seconds for name, policy in found.policies.job_types.items()}
    for name, why in cut_routes(found.routes.routes, deadlines):
        yield Finding("warn", "routing", f"{name}: {why}")
    if not found.routes.cold_queue:
        yield Finding("warn", "routing", "ENABLE_COLD_QUEUE is off: jobs do not wait for a route")


def _money(environment: Environment) -> Iterator[Finding]:
    """Caps, prices and cached answers."""
    try:
        budgets, caching = load_budgets(environment), load_caching(environment)
    except ConfigurationError as error:
        yield from wrong("money", error)
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
        yield from wrong("people", ConfigurationError(others))
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
