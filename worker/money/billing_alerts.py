"""What billing says of the providers' budgets, and the pause that follows at BUDGET_PAUSE_AT_PERCENT.

The provider's own cap is the last resort: Google enforces its spend cap some ten minutes late. Messages come at least once
and in any order: each counts once, an older one never lowers the value, and no value ever resumes.
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

TOTAL = "total"  # in a provider's place: the budget of all of them together
OWN_LEDGER, OWN_NAME = "ledger", "our own ledger"  # the id and name of the budget that ledger.py keeps

SPEND = Script.load(Path(__file__).parent / "lua", "billing_alert")


@dataclass(frozen=True)
class Guardrail:
    """When a budget pauses, and what: everything, as a provider's bill is the whole business's, or its routes alone."""

    at_percent: float = 80.0
    scope: Literal["all", "provider"] = "all"

    @classmethod
    def of(cls, environment: Environment) -> Guardrail:
        """BUDGET_PAUSE_AT_PERCENT and BUDGET_PAUSE_SCOPE."""
        text = environment.get("BUDGET_PAUSE_AT_PERCENT") or "80"
        scope = environment.get("BUDGET_PAUSE_SCOPE") or "all"
        try:
            percent = float(text)
        except ValueError:
            percent = math.nan
        if not 0 < percent < math.inf:
            fix = "a percentage, as in 80"
            raise ConfigurationError([Problem("BUDGET_PAUSE_AT_PERCENT", "", f"{text!r} is no percentage", fix)])
        if scope not in ("all", "provider"):
            what, fix = f"{scope!r} is neither all nor provider", "all pauses everything"
            raise ConfigurationError([Problem("BUDGET_PAUSE_SCOPE", "", what, fix)])
        return cls(percent, scope)  # type: ignore[arg-type]  # just checked


@dataclass(frozen=True)
class BillingReport:
    """One word of billing. `at_ms`: when it was so, None for now; `interval`: the begin of the budget's month as billing
    writes it; `message_id`: the same for the same message; `who`: where it comes from; `budget_id` and `budget_name`: which
    of the provider's budgets, where there are several."""

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
    """What became of a word of billing; `paused`: it set a flag."""

    outcome: Literal["noted", "duplicate", "older"]
    paused: bool


@dataclass(frozen=True)
class ProviderSpend:
    """What is known of a provider's budget. `at` in Unix seconds; `again_at`: the percentage up to which an operator let
    it go on."""

    provider: str
    percent: float
    at: float
    who: str
    again_at: float | None = None
    budget: str = ""  # its name, where the provider has several

    def __str__(self) -> str:
        return f"{self.provider} ({self.budget})" if self.budget else self.provider


def observe_call(spend: BillingReport, guardrail: Guardrail) -> Call:
    """Reply for `observed`."""
    provider = canonical(spend.provider)
    budget = f"its budget ({spend.budget_name})" if spend.budget_name else "its budget"
    said = "the total" if provider == TOTAL else provider
    why = f"{said} has used {spend.percent:.4g}% of {budget} (the pause begins at {guardrail.at_percent:g}%)"
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
    told = (field, spend.percent, when, spend.interval, spend.message_id, guardrail.at_percent)
    note = note_of(who=BUDGET, why=why)
    return SPEND.call(
        keys, [*told, int(guardrail.scope == "all"), note, spend.who, keyspace.CONTROL, spend.budget_name]
    )


def observed(reply: Any) -> Observed:
    outcome, paused = reply
    return Observed(outcome.decode(), bool(paused))


def observe(client: redis.Redis, spend: BillingReport, guardrail: Guardrail) -> Observed:
    """Note it and pause at the threshold."""
    return observed(ask(client, [observe_call(spend, guardrail)])[0])


def known(client: redis.Redis) -> list[ProviderSpend]:
    """The newest word of each provider."""
    (found,) = ask(client, [("HGETALL", keyspace.SPEND)])
    spends = []
    for field, raw in sorted(found.items()):
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # anybody may write into Redis
            told, provider = json.loads(raw), field.decode().partition(":")[0]
            at, again_at, name = told["at"] / 1000, told.get("again_at"), told.get("name", "")
            spends.append(ProviderSpend(provider, told["percent"], at, told["who"], again_at, name))
    return spends
