"""The promotion gate: whether a route that was tried on a part of the jobs may take them all. From its answers in Redis and
the history; it calls nobody and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import redis

from ops.reports.slo.state import ScopeState
from producer import JobResult, Producer, keyspace
from producer.scripts import ask
from worker.history.collector import HOUR_MS
from worker.history.document import together
from worker.history.read import numbered
from worker.humanize import many, money, took
from worker.objectives.indicators import SHARE
from worker.objectives.policy import FILE, SloPolicy
from worker.routes.prices import dollars

DAY_HOURS = 24
PAGE = 200  # results that are read at once
READ_AT_MOST = 20_000  # results, the newest ones
FORM_MARGIN = 0.05  # so much more or less of a form than on other routes may be chance
FORMS = ("JSON", "calls of tools", "cut off at their limit")
LESS_IS_WORSE = FORMS[:2]


@dataclass(frozen=True)
class Sample:
    """One answer of a route. `ms`: of the call that answered; `forms`: which of FORMS it has."""

    ms: float
    cost_usd: float | None
    forms: frozenset[str]


@dataclass(frozen=True)
class Check:
    """One condition of the gate. `holds`: it is met; `told`: with its figures, for people."""

    name: str
    holds: bool
    told: str


@dataclass(frozen=True)
class Trial:
    """What the gate judges. `others`: answers of all other routes in the same time. `days`: what a call cost in US dollars, by
    day on which the route was called, oldest first; `lasted_days`: since its first call in the history."""

    samples: Sequence[Sample]
    others: Sequence[Sample]
    days: Sequence[float]
    lasted_days: float


def gather(producer: Producer, queues: Sequence[str], route: str, wanted: int, now_ms: int) -> Trial:
    """Read the newest `wanted` answers of the route and of the others, and what it cost by day."""
    mine: list[Sample] = []
    others: list[Sample] = []
    for result in _results(producer, queues):
        if result.completion is None or result.cache_hit or result.resolved_by == "human":
            continue
        of = mine if result.route == route else others
        if len(of) < wanted:
            of.append(sample_of(result))
        if len(mine) >= wanted and len(others) >= wanted:
            break
    days, lasted_days = _days(producer.client, route, now_ms)
    return Trial(mine, others, days, lasted_days)


def _results(producer: Producer, queues: Sequence[str]) -> Iterator[JobResult]:
    """The newest results, in the order of their expiry."""
    for queue in queues:
        for begin in range(0, READ_AT_MOST, PAGE):
            (ids,) = ask(producer.client, [("ZREVRANGE", keyspace.finished(queue), begin, begin + PAGE - 1)])
            yield from (each for each in producer.fetch_many([i.decode() for i in ids]) if each is not None)
            if len(ids) < PAGE:
                break


def sample_of(result: JobResult) -> Sample:
    """What the gate needs of a result."""
    message = (result.completion or {}).get("choices", [{}])[0].get("message") or {}
    found = [_is_json(result.text), bool(message.get("tool_calls")), result.truncated]
    attempts = result.attempted
    ms = attempts[-1].ms if attempts else result.run_ms or 0
    return Sample(ms, result.cost_usd, frozenset(name for name, has in zip(FORMS, found, strict=True) if has))


def _is_json(text: str) -> bool:
    """Whether the text is a JSON object or list."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _days(client: redis.Redis, route: str, now_ms: int) -> tuple[list[float], float]:
    """US dollars a call of each day on which the route was called in the last 31 days; days since its first call."""
    hour, by_day, first = now_ms // HOUR_MS, [], None
    for begin in range(hour - 31 * DAY_HOURS + 1, hour + 1, DAY_HOURS):
        day = list(numbered(client, range(begin, begin + DAY_HOURS), HOUR_MS))
        first = first or next((each.begin_ms for each in day if route in each.document.facts["route"]), None)
        facts = together(each.document for each in day).facts["route"].get(route)
        if facts and (calls := facts.counters.get("calls", 0)):
            by_day.append(dollars(facts.counters.get("micros", 0)) / calls)
    return by_day, (now_ms - first) / (DAY_HOURS * HOUR_MS) if first else 0.0


def judge(trial: Trial, policy: SloPolicy, of_all: ScopeState, frozen: str, wanted: int) -> list[Check]:
    """Every condition of the gate; the route may be promoted if all hold."""
    return [
        _budget(of_all, frozen),
        Check("samples", len(trial.samples) >= wanted, f"{many(len(trial.samples), 'answer')} of {wanted} wanted"),
        _latency(trial.samples, policy),
        *_costs(trial, policy),
        *_forms(trial),
    ]


def _budget(of_all: ScopeState, frozen: str) -> Check:
    if frozen:
        return Check("error budget", False, f"launches are frozen: {frozen}")
    if of_all.budget is None:
        return Check("error budget", False, f"there is none: set targets.success_percent in policies/{FILE}")
    left = of_all.budget.left
    return Check("error budget", left >= 0, f"{left:,.1f} failures left of {of_all.budget.allowed:,.1f}")


def _latency(samples: Sequence[Sample], policy: SloPolicy) -> Check:
    target = policy.targets.p95_answer_seconds
    if target is None or not samples:
        return Check(
            "p95", False, "nothing to compare" if target else f"targets.p95_answer_seconds is not set in {FILE}"
        )
    p95 = sorted(each.ms for each in samples)[-(-len(samples) * round(100 * SHARE) // 100) - 1]
    return Check("p95", p95 <= target * 1000, f"{took(p95)} for its calls, at most {target:g} s")


def _costs(trial: Trial, policy: SloPolicy) -> Iterator[Check]:
    target, wanted = policy.targets.average_cost_usd, policy.client.trial_days
    if target is None:
        yield Check("cost", False, f"targets.average_cost_usd is not set in {FILE}")
        return
    known = [each.cost_usd for each in trial.samples if each.cost_usd is not None]
    if len(known) < len(trial.samples) or not known:
        yield Check("cost", False, "not known of every answer: give the route a `price` in routes.json")
    else:
        average = sum(known) / len(known)
        yield Check("cost", average <= target, f"{money(average)} an answer on average, at most ${target:g}")
    dear = sum(1 for cost in trial.days if cost > target)
    told = f"called for {trial.lasted_days:.1f} days of {wanted}; {many(dear, 'day')} above the target of cost"
    yield Check("trial", trial.lasted_days >= wanted and not dear, told)


def _forms(trial: Trial) -> Iterator[Check]:
    """The forms of its answers beside those of the other routes, which answered jobs of the same kinds."""
    if not trial.samples or not trial.others:
        yield Check("form", False, "no answers of another route to compare with")
        return
    for form in FORMS:
        mine, other = (sum(form in each.forms for each in of) / len(of) for of in (trial.samples, trial.others))
        worse = other - mine if form in LESS_IS_WORSE else mine - other
        yield Check(f"answers that are {form}", worse <= FORM_MARGIN, f"{mine:.0%}, on other routes {other:.0%}")
