"""`failover budget ...`: the spending by our ledger and by billing, the caps, and cost saving."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click
import redis
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from ops.importers.provider_costs import poll
from ops.local import session
from ops.options import Group, as_json
from producer import keyspace
from producer.environment import Environment
from producer.errors import UsageError, first_problem
from producer.scripts import ask
from worker.control.pause import utc
from worker.humanize import many, money, one_line
from worker.money import billing_alerts, budget_state, cost_saving
from worker.money.billing_alerts import Guardrail
from worker.money.budget_state import Standing, month_of, once_full, steps_of
from worker.money.caps import SCOPES, Cap, load_budgets, scope_named
from worker.reports import statement
from worker.reports.statement import Balance
from worker.routes.prices import dollars

_MONTH = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])")
KINDS = ("total", "provider", "tenant", "user", "feature")


class Scope(click.ParamType[str]):
    """total, provider:P, tenant:T, user:TENANT/USER or feature:F."""

    name = "scope"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        scope = scope_named(str(value))
        return scope if scope is not None else self.fail(f"{value}: use {SCOPES}", param, context)


class Amount(click.ParamType[Any]):
    """A number that is not negative, or `none` for no cap."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        if value == "none" or isinstance(value, float):
            return value
        try:
            return float(str(value).removeprefix("$"))
        except ValueError:
            self.fail(f"{value} is not an amount: use a number such as 60, or none", param, context)


def _month(context: click.Context, param: click.Parameter, value: str | None) -> str:
    if value is None:
        return month_of(datetime.now(UTC))
    if not _MONTH.fullmatch(value):
        raise UsageError(f"--month {value}: use a year and a month, such as 2026-11")
    return value


month_option = click.option(
    "--month", callback=_month, metavar="YYYY-MM", help="The month (UTC).  [default: this month]"
)


@click.group("budget", cls=Group)
def group() -> None:
    """The spending, the caps, and cost saving."""


group.add_command(poll)


@group.command()
@month_option
@click.option("--by", type=click.Choice(KINDS), help="Only scopes of this kind.")
@click.option("--all", "everything", is_flag=True, help="Every scope, not only the largest and those with a cap.")
@as_json
@click.pass_obj
def show(environment: Environment, month: str, by: str | None, everything: bool, as_json: bool) -> None:
    """Show the spending and the caps by our own ledger, and the newest report of billing.

    Listed are the scopes with a cap, and of every kind the 20 with the highest spending; --all and --json list all.
    """
    guardrail, budgets = Guardrail.of(environment), load_budgets(environment)
    with session.reached(environment) as (_, client):
        known, standing = billing_alerts.known(client), budget_state.standing(client, month)
        found = statement.sums(client, month)
        lines = statement.balances(found, budgets, standing, statement.set_by(client))
    lines = [line for line in lines if by in (None, line.scope.partition(":")[0])]
    if as_json:
        head = {"month": month, "pause_at_percent": guardrail.at_percent, "reduced": standing.reduced or None}
        both = {"scopes": [asdict(line) for line in lines], "providers": [asdict(each) for each in known]}
        click.echo(json.dumps({**head, **both}, indent=2))
        return
    shown, rest = statement.shortened(lines, {*budgets.named, *standing.caps})
    _render(lines if everything else shown, month, standing)
    for kind, (count, together) in ({} if everything else rest).items():
        click.echo(f"and {many(count, f'more {kind}')}, {money(together.spent_usd)} spent; --all lists them")
    for each in (each for each in known if each.budget != billing_alerts.OWN_NAME):
        again = f"; pauses again at {each.again_at:g}%" if each.again_at else ""
        click.echo(f"{each}: {each.percent:.4g}% used, reported by {each.who} at {utc(each.at)}{again}")
    if all(each.budget == billing_alerts.OWN_NAME for each in known):
        click.echo("no report of billing yet: POST /budget/webhook, or `failover budget poll`")
    click.echo(f"jobs pause at {guardrail.at_percent:g}% (BUDGET_PAUSE_AT_PERCENT)")


def _render(lines: list[Balance], month: str, standing: Standing) -> None:
    if standing.reduced:
        click.echo(f"COST SAVING: {standing.reduced}; `failover budget reduce --end` ends it")
    table = Table(month, "spent", "may be billed", "running", "tokens", "cap", "used", box=None)
    for line in lines:
        soft = f" (soft {money(line.soft_usd)})" if line.soft_usd is not None else ""
        cap = money(line.hard_usd) if line.hard_usd is not None else "-"
        tokens = f", {line.tokens_cap:,} tokens" if line.tokens_cap is not None else ""
        used = "-" if line.percent is None else f"{line.percent:.1f}%"
        by = f", set by {line.set_by}" if line.set_by else ""
        amounts = (line.spent_usd, line.ambiguous_usd, line.held_usd)
        table.add_row(
            escape(one_line(line.scope, 200)), *(f"${usd:,.6f}" if usd else "-" for usd in amounts), f"{line.tokens:,}",
            escape(f"{cap}{soft}{tokens}{by}"), used + (", too little left" if line.full else ""),
        )  # fmt: skip
    session.console().print(table)


@group.command("set")
@click.argument("scope", type=Scope())
@click.option("--hard", type=Amount(), metavar="USD", help="Never spend more than this; `none` removes the cap.")
@click.option("--soft", type=Amount(), metavar="USD", help="The amount that the alert thresholds refer to.")
@click.option("--tokens", type=Amount(), metavar="N", help="A hard cap on tokens.")
@click.pass_obj
def set_cap(environment: Environment, scope: str, hard: Any, soft: Any, tokens: Any) -> None:
    """Override the monthly cap of SCOPE for every worker, within a second. Amounts that are not given stay unchanged.

    SCOPE: total, provider:P, tenant:T, user:TENANT/USER or feature:F.
    """
    given = {"hard_usd": hard, "soft_usd": soft, "tokens": tokens}
    if all(value is None for value in given.values()):
        raise UsageError(
            "nothing to set: give --hard USD, --soft USD or --tokens N; `failover budget unset` removes an override"
        )
    budgets = load_budgets(environment)
    with session.reached(environment) as (_, client):
        before = statement.cap_now(client, budgets, scope)
        fields: dict[str, Any] = {name: getattr(before, name) for name in Cap.model_fields}
        cap = _checked({**fields, **{name: value for name, value in given.items() if value is not None}})
        statement.set_cap(client, scope, cap, month_of(datetime.now(UTC)), session.who())
        _print_cap(client, scope, before, cap)


def _checked(fields: dict[str, Any]) -> Cap:
    values = {name: None if value == "none" else value for name, value in fields.items()}
    if isinstance(values["tokens"], float) and values["tokens"].is_integer():
        values["tokens"] = int(values["tokens"])
    try:
        return Cap.model_validate(values)
    except ValidationError as error:
        raise UsageError(": ".join(first_problem(error)).strip(": ")) from None


def _print_cap(client: redis.Redis, scope: str, before: Cap, cap: Cap) -> None:
    """Print the new cap, the old one and the spending, and note an unknown scope."""
    known = statement.sums(client)
    spent = known.get(scope, statement.Sums())
    used = spent.spent + spent.ambiguous
    click.echo(f"{scope}: {cap} (before: {before}); {money(dollars(used))} is used this month")
    hard = cap.terms[0]
    if 0 <= hard <= used:
        session.note(f"the cap is used up: {once_full(scope)}")
    if scope not in known and scope != "total":
        session.note(f"the ledger of this month has no call of {scope}: is the name right?")


@group.command()
@click.argument("scope", type=Scope())
@click.pass_obj
def unset(environment: Environment, scope: str) -> None:
    """Remove the override that `set` made for SCOPE: policies/budgets.yaml applies again."""
    with session.reached(environment) as (_, client):
        changed = statement.set_cap(client, scope, None, month_of(datetime.now(UTC)), session.who())
    cap = load_budgets(environment).cap_of(scope)
    click.echo(f"{scope}: {'policies/budgets.yaml applies again' if changed else 'there was no override'}: {cap}")


@group.command()
@click.option("--for", "lasts", metavar="AGE", help="Only for a time such as 90m, 12h or 7d.")
@click.option("--reason", default="", help="Why; shown in `failover status`.")
@click.option("--end", is_flag=True, help="Turn cost saving off.")
@click.pass_obj
def reduce(environment: Environment, lasts: str | None, reason: str, end: bool) -> None:
    """Turn cost saving on for every job: the cheapest route first, less context, shorter answers (`cost_saving` in
    policies/budgets.yaml). No job stops."""
    seconds = session.age_seconds("--for", lasts) if lasts else None
    with session.reached(environment) as (_, client):
        if end and lasts:
            raise UsageError("give --end or --for, not both")
        if end:
            was = cost_saving.end(client, who=session.who())
            click.echo("cost saving is off" if was else "cost saving was not on")
            return
        if (standing := _longer_saving(client, seconds)) is not None:
            session.note(
                f"cost saving is on already, for longer{standing}: end it first with `failover budget reduce --end`"
            )
            return
        cost_saving.begin(client, who=session.who(), why=reason, seconds=seconds)
    until = f" for {lasts}" if lasts else ", until `failover budget reduce --end`"
    click.echo(f"cost saving is on for every job{until}: the cheapest route first, less context, shorter answers")


def _longer_saving(client: redis.Redis, seconds: int | None) -> str | None:
    """The reason, if cost saving is on already and lasts longer than `seconds` (None: until somebody ends it)."""
    left_ms, raw = ask(client, [("PTTL", keyspace.REDUCE), ("GET", keyspace.REDUCE)])
    if raw is None or seconds is None or 0 <= left_ms <= seconds * 1000:
        return None
    return f" ({budget_state.standing(client).reduced})"


@group.command()
@month_option
@click.option("--job", metavar="ID", help="Only the rows of this job.")
@click.option("--state", type=click.Choice(["settled", "ambiguous", "released", "reserved", "dispatched"]))
@click.option("--tenant", help="Only the rows of this tenant.")
@click.pass_obj
def ledger(environment: Environment, month: str, job: str | None, state: str | None, tenant: str | None) -> None:
    """Print every row of the month as one line of JSON: the cost of each attempt and its price."""
    wanted = {name: value for name, value in (("job", job), ("state", state), ("tenant", tenant)) if value is not None}
    with session.reached(environment) as (_, client):
        for row in statement.rows(client, month):
            if all(row[name] == value for name, value in wanted.items()):
                click.echo(json.dumps({**row, "usd": dollars(row["micros"])}))


@group.command()
@click.argument("rows", nargs=-1, metavar="[ROW...]")
@click.option("--all", "everything", is_flag=True, help="Every ambiguous row of the month.")
@click.option(
    "--usd", type=click.FloatRange(min=0, max=1e6), required=True, help="The cost of each call; 0: it was not billed."
)
@month_option
@click.pass_obj
def settle(environment: Environment, rows: tuple[str, ...], everything: bool, usd: float, month: str) -> None:
    """Record the cost of ambiguous calls, from the provider's own records. Their amounts are then spent or free again.

    ROW: an `id` of `failover budget ledger --state ambiguous`.
    """
    if everything == bool(rows):
        raise UsageError("no rows: give ROW... or --all; `failover budget ledger --state ambiguous` lists them")
    steps = steps_of(load_budgets(environment), Guardrail.of(environment))
    with session.reached(environment) as (_, client):
        known = [row["id"] for row in statement.rows(client, month) if row["state"] == "ambiguous"]
        wanted = known if everything else list(rows)
        if unknown := sorted(set(wanted) - set(known)):
            raise UsageError(f"{unknown[0]} is not an ambiguous row of {month}")
        settled = sum(
            statement.settle(client, steps, wanted[start : start + 500], month, math.ceil(round(usd * 1e6, 3)))
            for start in range(0, len(wanted), 500)
        )
    click.echo(f"{many(settled, 'row')} settled at {money(usd)} each")
