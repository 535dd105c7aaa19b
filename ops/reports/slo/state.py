"""The state of objectives in a window: every indicator against its target, the error budget, the burn rates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from worker.history.collector import MINUTE_MS
from worker.history.document import ALL, OTHERS, Document, Facts, together
from worker.history.read import numbered, slices
from worker.humanize import money, took
from worker.objectives.indicators import (
    Counts,
    ErrorBudget,
    Indicator,
    Sli,
    burn_rate,
    counts_of,
    error_budget,
    indicators,
)
from worker.objectives.policy import SloPolicy
from worker.objectives.windows import measured

BURN_MINUTES = {"1h": 60, "6h": 360}
TITLES = {
    Sli.SUCCESS: "success rate",
    Sli.ANSWER: "p95 to the answer",
    Sli.FIRST_TOKEN: "p95 to the first token",
    Sli.AVERAGE_COST: "average cost",
    Sli.P95_COST: "p95 of the cost",
}


@dataclass(frozen=True)
class ScopeState:
    """The state of all jobs, or of one feature or tenant. `budget`: None without a target for success. `burns`: burn rates by
    their window, None without requests; empty without that target."""

    dimension: str
    name: str
    counts: Counts
    indicators: tuple[Indicator, ...]
    budget: ErrorBudget | None
    burns: Mapping[str, float | None]

    @property
    def missed(self) -> list[Indicator]:
        return [each for each in self.indicators if each.met is False]

    @property
    def scope(self) -> str:
        """`all jobs`, `tenant acme`."""
        return f"{self.dimension} {self.name}" if self.name else "all jobs"


@dataclass(frozen=True)
class State:
    """The state in a window of Unix times in milliseconds: first of the scope that was asked for, then, if that was all jobs,
    of each feature and tenant, the busiest first."""

    since_ms: int
    until_ms: int
    scopes: tuple[ScopeState, ...]


def state(
    client: redis.Redis, policy: SloPolicy, since_ms: int, now_ms: int, dimension: str = ALL, name: str = ""
) -> State:
    """Read the state from `since_ms` up to now."""
    found = list(measured(client, policy, slices(client, since_ms, now_ms)))
    windows = {"window": together(each.document for each in found), **dict(_recent(client, policy, now_ms))}
    names = [(dimension, name)]
    if dimension == ALL:
        of = windows["window"].facts
        names += [(d, n) for d in ("feature", "tenant") for n in _busiest(of[d]) if n != OTHERS]
    states = tuple(_state(policy, windows, *each) for each in names)
    return State(found[0].begin_ms, now_ms, states)


def _recent(client: redis.Redis, policy: SloPolicy, now_ms: int) -> Iterator[tuple[str, Document]]:
    minute = now_ms // MINUTE_MS
    for window, minutes in BURN_MINUTES.items():
        found = numbered(client, range(minute - minutes + 1, minute + 1), MINUTE_MS)
        yield window, together(each.document for each in measured(client, policy, found))


def _busiest(names: Mapping[str, Facts]) -> Sequence[str]:
    return sorted(names, key=lambda name: (-names[name].weight, name))


def _state(policy: SloPolicy, windows: Mapping[str, Document], dimension: str, name: str) -> ScopeState:
    targets = policy.of(dimension, name)
    counts = {window: counts_of(document.facts[dimension].get(name) or Facts()) for window, document in windows.items()}
    whole = counts["window"]
    if (success := targets.success_percent) is None:
        return ScopeState(dimension, name, whole, indicators(whole, targets), None, {})
    burns = {window: burn_rate(of, success) for window, of in counts.items()}
    return ScopeState(dimension, name, whole, indicators(whole, targets), error_budget(whole, success), burns)


def shown(sli: Sli, value: float | None) -> str:
    """A measured value or a target, for people."""
    if value is None:
        return "-"
    if sli is Sli.SUCCESS:
        return f"{math.floor(value * 1000) / 1000:g}%"  # rounded down: only 100% is shown as 100%
    return took(value * 1000) if sli in (Sli.ANSWER, Sli.FIRST_TOKEN) else money(value)


def target_shown(each: Indicator) -> str:
    """`at least 99.5%`, `at most 2.5 s`; `-` without a target."""
    if each.target is None:
        return "-"
    sign = "at least" if each.sli is Sli.SUCCESS else "at most"
    if each.sli is Sli.SUCCESS:
        return f"{sign} {each.target:g}%"
    return f"{sign} {each.target:g} s" if each.sli in (Sli.ANSWER, Sli.FIRST_TOKEN) else f"{sign} ${each.target:g}"


def as_data(of: ScopeState) -> dict[str, Any]:
    """For programs: percent, seconds and US dollars."""
    budget = of.budget
    return {
        "of": of.dimension,
        "name": of.name,
        "requests": of.counts.requests,
        "failures": of.counts.failures,
        "late": of.counts.late,
        "indicators": {
            str(each.sli): {"value": each.value, "target": each.target, "met": each.met} for each in of.indicators
        },
        "error_budget": budget and {"allowed": budget.allowed, "spent": budget.spent, "left": budget.left},
        "burn_rates": dict(of.burns),
    }
