"""Indicators (SLIs), error budget and burn rate, as pure functions of what the history counted.

A request is a job that ended. It failed if every try that its policy allows failed, if it expired, if workers crashed on it,
or if its answer came later than its job type promises: retryable errors and time-outs. A refusal, a request that a provider
rejects, one that cannot be read or is over its budget, and one that somebody cancelled, are left out: nobody could have
answered them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from producer.job import DeadReason
from worker.history.document import COST, Facts, Histogram
from worker.objectives.policy import Targets

LEFT_OUT = (
    DeadReason.REJECTED,
    DeadReason.REFUSED,
    DeadReason.MALFORMED,
    DeadReason.DISALLOWED,
    DeadReason.OVER_BUDGET,
)
SHARE = 0.95  # of the requests, that a p95 is the bound of


@dataclass(frozen=True)
class Counts:
    """The numbers behind the indicators. `answer`: milliseconds from the acceptance of a job to its whole answer.
    `first_token`: milliseconds from the begin of the call that answered to its first token, only of routes that stream.
    `cost`: micro-dollars of each answered job. `micros`: what was paid in all, also for failed calls, in micro-dollars."""

    requests: int = 0
    failures: int = 0
    late: int = 0
    micros: int = 0
    answer: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)
    cost: Histogram = field(default_factory=Histogram)


def counts_of(facts: Facts) -> Counts:
    """The counts of what happened."""
    done, dead, late = (facts.counters.get(name, 0) for name in ("done", "dead", "late"))
    dead -= sum(facts.counters.get(f"dead {reason}", 0) for reason in LEFT_OUT)
    times = (facts.times.get(name) or Histogram() for name in ("answer", "first token", COST))
    return Counts(done + dead, dead + late, late, facts.counters.get("micros", 0), *times)


class Sli(StrEnum):
    """The indicators, by the field of their target."""

    SUCCESS = "success_percent"
    ANSWER = "p95_answer_seconds"
    FIRST_TOKEN = "p95_first_token_seconds"  # noqa: S105 - a token of a text, no secret
    AVERAGE_COST = "average_cost_usd"
    P95_COST = "p95_cost_usd"


@dataclass(frozen=True)
class Indicator:
    """One indicator: percent, seconds or US dollars. `value`: None if nothing was measured; `target`: None if nothing is
    promised."""

    sli: Sli
    value: float | None
    target: float | None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is nothing to compare."""
        if self.value is None or self.target is None:
            return None
        return self.value >= self.target if self.sli is Sli.SUCCESS else self.value <= self.target


def indicators(counts: Counts, targets: Targets) -> tuple[Indicator, ...]:
    """Every indicator, in the order of Sli."""
    values = {
        Sli.SUCCESS: 100 * (counts.requests - counts.failures) / counts.requests if counts.requests else None,
        Sli.ANSWER: _scaled(counts.answer.quantile(SHARE), 1e3),
        Sli.FIRST_TOKEN: _scaled(counts.first_token.quantile(SHARE), 1e3),
        Sli.AVERAGE_COST: counts.micros / 1e6 / counts.requests if counts.requests else None,
        Sli.P95_COST: _scaled(counts.cost.quantile(SHARE), 1e6),
    }
    return tuple(Indicator(sli, value, getattr(targets, sli)) for sli, value in values.items())


def _scaled(value: float | None, divisor: float) -> float | None:
    return None if value is None else value / divisor


@dataclass(frozen=True)
class ErrorBudget:
    """How many requests may fail (`allowed`), and how many did (`spent`)."""

    allowed: float
    spent: int

    @property
    def left(self) -> float:
        """How many more may fail; below 0 if it is used up."""
        return self.allowed - self.spent

    @property
    def used(self) -> float:
        """The share of it that is spent: 1 is all of it. Without any allowed failure, one uses all of it."""
        return self.spent / self.allowed if self.allowed else float(self.spent > 0)


def error_budget(counts: Counts, success_percent: float) -> ErrorBudget:
    """The error budget of a window with these counts."""
    return ErrorBudget(counts.requests * (100 - success_percent) / 100, counts.failures)


def burn_rate(counts: Counts, success_percent: float) -> float | None:
    """How many times faster than allowed the error budget is spent: at 1 all of it is spent at the end of the window. None
    without any request."""
    if not counts.requests:
        return None
    return 100 * counts.failures / (counts.requests * (100 - success_percent))
