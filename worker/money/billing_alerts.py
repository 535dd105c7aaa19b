"""Billing alerts: what billing reports about the providers' budgets, and the pause at BUDGET_PAUSE_AT_PERCENT.

The pause is needed because a provider's own cap acts late: Google enforces its spend cap after about ten minutes. Messages
arrive at least once and in any order: each counts once, an older one never lowers the value, and no value ever resumes.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import redis

from producer import keyspace
from producer.environment import Environment
from producer.errors import ConfigurationError, Problem
from producer.scripts import Call, Script, ask
from worker.control.pause import BUDGET, EVERYTHING, Scope, note_of
from worker.routes.names import canonical

TOTAL = "total"  # instead of a provider: the budget of all providers together
OWN_LEDGER, OWN_NAME = "ledger", "our own ledger"  # id and name of the budget that our ledger reports

USUAL_SHARE = 95  # percent; at which budgets pause again after a person resumed

SPEND = Script.load(Path(__file__).parent / "lua", "billing_alert")


@dataclass(frozen=True)
class Guardrail:
    """When a budget pauses jobs, and which: `scope` "all" pauses everything, "provider" only the provider's routes."""

    at_percent: float = 80.0
    scope: Literal["all", "provider"] = "all"

    @classmethod
    def of(cls, environment: Environment) -> Guardrail:
        """Read BUDGET_PAUSE_AT_PERCENT and BUDGET_PAUSE_SCOPE. Raises ConfigurationError."""
        text = environment.get("BUDGET_PAUSE_AT_PERCENT") or "80"
        scope = environment.get("BUDGET_PAUSE_SCOPE") or "all"
        try:
            percent = float(text)
        except ValueError:
            percent = math.nan
        if not 0 < percent < math.inf:
            fix = "a percentage, as in 80"
            raise ConfigurationError([Problem("BUDGET_PAUSE_AT_PERCENT", "", f"{text!r} is not a percentage", fix)])
        if scope not in ("all", "provider"):
            what, fix = f"{scope!r} must be all or provider", "all pauses everything"
            raise ConfigurationError([Problem("BUDGET_PAUSE_SCOPE", "", what, fix)])
        return cls(percent, scope)  # type: ignore[arg-type]  # just checked


@dataclass(frozen=True)
class BillingReport:
    """One report of billing: `percent` of the budget is used. `at_ms`: when that was so (Unix ms), None for now.
    `interval`: start of the budget's month, as billing writes it. `message_id`: equal for repetitions of one message.
    `who`: the source. `budget_id` and `budget_name`: which budget, if the provider has several."""

    provider: str
    percent: float
    who: str = BUDGET
    at_ms: int | None = None
    interval: str = ""
    message_id: str = ""
    budget_id: str = ""
    budget_name: str = ""


@dataclass(frozen=True)
class Observed:
    """The effect of a billing report; `paused`: it set a pause flag."""

    outcome: Literal["noted", "duplicate", "older"]
    paused: bool


@dataclass(frozen=True)
class ProviderSpend:
    """The last known use of a provider's budget. `at`: Unix seconds. `again_at`: the percentage at which it pauses again,
    after an operator resumed."""

    provider: str
    percent: float
    at: float
    who: str
    again_at: float | None = None
    budget: str = ""  # its name, where the provider has several

    def __str__(self) -> str:
        return f"{self.provider} ({self.budget})" if self.budget else self.provider


def share_above(*used: float) -> int:
    """A share (percent) at which budgets may pause again after a resume: above each share that is used already, and above
    the whole budget only if that is used up."""
    most = max(used)
    share = max(USUAL_SHARE, math.floor(most) + 5)
    return min(share, 100) if most < 100 else share


def observe_call(spend: BillingReport, guardrail: Guardrail) -> Call:
    """Record a billing report, and pause at the threshold. Read the reply with `observed`."""
    provider = canonical(spend.provider)
    budget = f"its budget ({spend.budget_name})" if spend.budget_name else "its budget"
    subject = "the total" if provider == TOTAL else provider
    why = f"{subject} has used {spend.percent:.4g}% of {budget} (the pause begins at {guardrail.at_percent:g}%)"
    keys = [
        keyspace.SPEND,
        keyspace.spend_message(f"{provider} {spend.message_id}"),
        EVERYTHING.flag,
        EVERYTHING.flag if provider == TOTAL else Scope(provider=provider).flag,
        keyspace.PAUSE_NOTES,
        keyspace.SUSPENDED,
        keyspace.QUEUES,
        keyspace.AUDIT,
    ]
    when = "" if spend.at_ms is None else spend.at_ms
    field = f"{provider}:{spend.budget_id}" if spend.budget_id else provider
    args = (field, spend.percent, when, spend.interval, spend.message_id, guardrail.at_percent)
    note = note_of(who=BUDGET, why=why)
    return SPEND.call(
        keys, [*args, int(guardrail.scope == "all"), note, spend.who, keyspace.CONTROL, spend.budget_name]
    )


def observed(reply: Any) -> Observed:
    """Reads the reply of `observe_call`."""
    outcome, paused = reply
    return Observed(outcome.decode(), bool(paused))


def observe(client: redis.Redis, spend: BillingReport, guardrail: Guardrail) -> Observed:
    """Record a billing report, and pause at the threshold."""
    return observed(ask(client, [observe_call(spend, guardrail)])[0])


def known(client: redis.Redis) -> list[ProviderSpend]:
    """The last known use of each budget, from Redis."""
    (found,) = ask(client, [("HGETALL", keyspace.SPEND)])
    spends = []
    for field, raw in sorted(found.items()):
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # not written by us: skip it
            fields, provider = json.loads(raw), field.decode().partition(":")[0]
            at, again_at, name = fields["at"] / 1000, fields.get("again_at"), fields.get("name", "")
            spends.append(ProviderSpend(provider, fields["percent"], at, fields["who"], again_at, name))
    return spends
