"""`failover slo show` and `failover slo check`: indicators, targets, error budget, burn rates."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import click
from rich.markup import escape
from rich.table import Table

from ops.local import session
from ops.options import as_json
from ops.reports.slo.state import TITLES, ScopeState, State, as_data, shown, state, target_shown
from producer.environment import Environment
from producer.errors import UsageError
from worker.control.pause import utc
from worker.history.document import ALL
from worker.notify.objectives.follow import frozen
from worker.objectives.indicators import Sli
from worker.objectives.policy import FILE, SloPolicy, load_slo_policy
from worker.queue.dead_letters import now_ms

LISTED = 10  # features, and tenants, of a table
MET = {True: "met", False: "[red]missed[/red]", None: ""}
NAMES = {"window": "whole window", "1h": "1 hour", "6h": "6 hours"}

since_option = click.option("--since", metavar="AGE", help="Instead of `window_days`: the last 90m, 24h, 7d.")


@click.command()
@click.option("--feature", help="Only of this feature.")
@click.option("--tenant", help="Only of this tenant.")
@since_option
@as_json
@click.pass_obj
def show(environment: Environment, feature: str | None, tenant: str | None, since: str | None, as_json: bool) -> None:
    """Show each indicator, its target, the error budget that is left, and the burn rates."""
    if feature is not None and tenant is not None:
        raise UsageError("give only one of --feature and --tenant: they are counted apart")
    dimension = "feature" if feature is not None else "tenant" if tenant is not None else ALL
    policy, found, why = _read(environment, since, dimension, feature or tenant or "")
    if as_json:
        window = {"since_ms": found.since_ms, "until_ms": found.until_ms}
        first, *others = map(as_data, found.scopes)
        click.echo(json.dumps({**window, **first, "frozen": why or None, "scopes": others}))
        return
    console = session.console()
    for line in (*_heading(found, policy), *([f"launches are frozen: {escape(why)}"] if why else [])):
        console.print(line)
    if found.scopes[0].counts.requests:
        console.print(_table(found.scopes[0]))
        for line in _budget_lines(found.scopes[0]):
            console.print(line)
        for what in ("feature", "tenant"):
            if of := [each for each in found.scopes[1:] if each.dimension == what]:
                console.print("")
                console.print(_overview(what, of))


@click.command()
@since_option
@as_json
@click.pass_obj
def check(environment: Environment, since: str | None, as_json: bool) -> None:
    """Exit with 1 if a target of all jobs, a feature or a tenant is missed."""
    policy, found, _ = _read(environment, since, ALL, "")
    if not policy.promises:
        raise UsageError(f"nothing is promised: set targets in policies/{FILE}")
    missed = [(of, each) for of in found.scopes for each in of.missed]
    if as_json:
        click.echo(json.dumps({"missed": [{**as_data(of), "sli": str(each.sli)} for of, each in missed]}))
    else:
        for of, each in missed:
            click.echo(f"{of.scope}: {TITLES[each.sli]} {shown(each.sli, each.value)}, {target_shown(each)}")
        if not missed:
            click.echo(f"every target is met: {found.scopes[0].counts.requests:,} requests since {_at(found.since_ms)}")
    sys.exit(1 if missed else 0)


def _read(environment: Environment, since: str | None, dimension: str, name: str) -> tuple[SloPolicy, State, str]:
    """The policy, the state, and why launches are frozen ("" if they are not)."""
    policy = load_slo_policy(environment)
    seconds = session.age_seconds("--since", since or f"{policy.window_days}d")
    with session.reached(environment) as (_, client):
        now = now_ms(client)
        return policy, state(client, policy, now - seconds * 1000, now, dimension, name), frozen(client)


def _at(ms: int) -> str:
    return utc(ms / 1000)


def _heading(found: State, policy: SloPolicy) -> Iterator[str]:
    first = found.scopes[0]
    figures = f"{first.counts.requests:,} requests, {first.counts.failures:,} failed ({first.counts.late:,} late)"
    yield f"{_at(found.since_ms)} to {_at(found.until_ms)}, {escape(first.scope)}: {figures}"
    if not policy.of(first.dimension, first.name).any:
        yield f"nothing is promised: set targets in policies/{FILE}"


def _table(of: ScopeState) -> Table:
    table = Table("indicator", "measured", "target", "", box=None)
    for each in of.indicators:
        measured = shown(each.sli, each.value)
        if each.sli is Sli.FIRST_TOKEN and each.value is None:
            measured = "no route streams"
        table.add_row(TITLES[each.sli], measured, target_shown(each), MET[each.met])
    return table


def _budget_lines(of: ScopeState) -> Iterator[str]:
    if of.budget is None:
        return
    share = f" ({1 - of.budget.used:.0%})" if of.budget.allowed else ""
    yield f"error budget  {of.budget.allowed:,.1f} failures allowed, {of.budget.spent:,} spent, {of.budget.left:,.1f} left{share}"
    rates = ", ".join(f"{NAMES[window]} {_rate(rate)}" for window, rate in of.burns.items())
    yield f"burn rate     {rates}"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1f}"


def _overview(what: str, states: list[ScopeState]) -> Table:
    """One row for each feature or tenant."""
    table = Table(what, "requests", *TITLES.values(), "error budget left", box=None)
    for of in states[:LISTED]:
        values = [
            f"[red]{shown(each.sli, each.value)}[/red]" if each.met is False else shown(each.sli, each.value)
            for each in of.indicators
        ]
        left = "-" if of.budget is None else f"{of.budget.left:,.1f}"
        table.add_row(escape(of.name), f"{of.counts.requests:,}", *values, left)
    if len(states) > LISTED:
        table.add_row(f"({len(states) - LISTED} more: --json has all)")
    return table
