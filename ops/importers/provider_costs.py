"""`failover budget poll`: reads the costs that providers report; for a cron job."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import click

from ops.local import session
from ops.options import as_json
from producer.environment import Environment
from producer.errors import ConfigurationError, FailoverError, Problem
from worker.money import billing_alerts
from worker.money.billing_alerts import BillingReport, Guardrail
from worker.network import Network

POLLED = {"openai": "https://api.openai.com", "anthropic": "https://api.anthropic.com"}


@dataclass(frozen=True)
class Polled:
    """The costs of one provider in this month, in US dollars. `problem`: why they could not be read."""

    provider: str
    dollars: float | None = None
    budget_dollars: float | None = None
    percent: float | None = None
    paused: bool = False
    problem: str | None = None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.provider}: {self.problem}"
        paused = "; jobs are paused" if self.paused else ""
        return f"{self.provider}: ${self.dollars:.2f} of ${self.budget_dollars:.2f} this month, {self.percent:.1f}%{paused}"


@click.command()
@as_json
@click.pass_obj
def poll(environment: Environment, as_json: bool) -> None:
    """Read the providers' cost endpoints, record the used share of the budget, and pause at the threshold. For a cron job.

    Needs OPENAI_ADMIN_KEY or ANTHROPIC_ADMIN_KEY, and OPENAI_MONTHLY_BUDGET_USD (without it, the organization's spend
    limit) or ANTHROPIC_MONTHLY_BUDGET_USD.
    """
    guardrail, keys, network = Guardrail.of(environment), dict(_keys(environment)), Network.of(environment)
    if not keys:
        names = " or ".join(f"{provider.upper()}_ADMIN_KEY" for provider in POLLED)
        raise ConfigurationError([Problem(names, "", "is not set", "make an admin key in the provider's console")])
    budgets = {provider: _budget(environment, provider) for provider in keys}
    found = []
    with session.opened(environment) as active:
        for provider, key in keys.items():
            base_url = environment.get(f"{provider.upper()}_ADMIN_BASE_URL") or POLLED[provider]
            try:
                dollars, budget, month = _read(provider, base_url.rstrip("/"), key, budgets[provider], network)
            except FailoverError as error:
                found.append(Polled(provider, problem=str(error)))
                continue
            percent = float(100 * dollars / budget)
            seen = billing_alerts.observe(
                active.producer.client, BillingReport(provider, percent, "poll", interval=month), guardrail
            )
            found.append(Polled(provider, float(dollars), float(budget), percent, seen.paused))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        for each in found:
            click.echo(str(each), err=each.problem is not None)
    sys.exit(any(each.problem is not None for each in found))


def _keys(environment: Environment) -> Iterator[tuple[str, str]]:
    for provider in POLLED:
        if key := environment.get(f"{provider.upper()}_ADMIN_KEY", "").strip():
            yield provider, key


def _budget(environment: Environment, provider: str) -> Decimal | None:
    variable = f"{provider.upper()}_MONTHLY_BUDGET_USD"
    text = environment.get(variable, "").strip()
    try:
        budget = Decimal(text) if text else None
    except InvalidOperation:
        budget = Decimal(0)
    if budget is not None and not (budget.is_finite() and budget > 0):
        raise ConfigurationError(
            [Problem(variable, "", f"{text!r} is not an amount", "give US dollars a month, such as 250")]
        )
    return budget


def _read(
    provider: str, base_url: str, key: str, budget: Decimal | None, network: Network
) -> tuple[Decimal, Decimal, str]:
    """(spent, budget, begin of the month); amounts in US dollars. Raises CostsUnread."""
    from worker.providers import costs  # imports the HTTP client

    if not (key.isascii() and key.isprintable()):
        raise costs.CostsUnread(f"{provider.upper()}_ADMIN_KEY has a character that no key has — copy it again")
    month = costs.Month.of(datetime.now(UTC))
    if budget is None and provider == "openai":
        budget = costs.openai_limit_dollars(base_url, key, network)
    if budget is None:
        raise costs.CostsUnread(f"the budget is unknown — set {provider.upper()}_MONTHLY_BUDGET_USD")
    read = costs.openai_dollars if provider == "openai" else costs.anthropic_dollars
    return read(base_url, key, month, network), budget, str(month)
