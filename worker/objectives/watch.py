"""Looks at the history for the notifier: which alarms are open now, and why.

The state of an alarm follows from the history alone, so a notifier that takes over finds the same. Minutes and hours that are
over are read once, and each alarm goes on from where it was at the last look.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from worker.history.collector import HOUR_MS, MINUTE_MS
from worker.history.document import ALL, OTHERS, Document, together
from worker.history.read import numbered
from worker.humanize import many, money
from worker.money import budget_state
from worker.money.budget_state import month_of
from worker.objectives.alarms import (
    CLOSED,
    LONGEST_MINUTES,
    Alarm,
    Rule,
    Sample,
    State,
    Sums,
    burns_slowly,
    rules,
    running_sums,
)
from worker.objectives.cause import causes, failing_route
from worker.objectives.indicators import Counts, counts_of, error_budget
from worker.objectives.policy import SloPolicy, Targets
from worker.objectives.windows import measured
from worker.routes.prices import dollars

log = logging.getLogger("failover.worker")

HORIZON_MINUTES = LONGEST_MINUTES + 120  # from which a new notifier computes the states
UNSETTLED = 3  # the last minutes and hours may still get what happened in them
DAY_HOURS, MONTH_DAYS = 24, 30
HOURS_READ = 31 * DAY_HOURS  # this month, and the rate of the last one
TIMES = ("answer", "first token")  # the histograms that rules need
SCOPES = (ALL, "feature", "tenant")

NOTHING = Sample()

Scope = tuple[str, str]  # dimension, name


@dataclass(frozen=True)
class Finding:
    """One open alarm, or a budget that is used early. `dimension`, `name`: of its scope, ALL and "" for all jobs. `what`: what is
    wrong, the most urgent first; `size`: its figures; `lines`: the cause in words; `route`: the one that fails while another
    answers, "" for none."""

    alarm: Alarm
    dimension: str
    name: str
    what: tuple[str, ...]
    size: str
    lines: tuple[str, ...]
    route: str = ""

    @property
    def scope(self) -> str:
        """`tenant acme`; "" for all jobs."""
        return f"{self.dimension} {self.name}" if self.name else ""


class Watch:
    """What one notifier knows of the objectives. `policy` returns the one in force."""

    def __init__(self, client: redis.Redis, policy: Callable[[], SloPolicy]) -> None:
        self._client, self._policy = client, policy
        self._known = policy()
        self._minutes: dict[int, dict[Scope, Sample]] = {}
        self._hours: dict[int, dict[Scope, tuple[int, int]]] = {}  # requests, failures
        self._states: dict[tuple[Scope, Rule], tuple[int, State]] = {}  # after the minutes before a number
        self._ends: dict[int, int] = {}  # up to which minute and hour the last look has read
        self._burning = set[Scope]()
        self._happened: dict[int, Document] = {}  # of one look: in so many last minutes

    def findings(self, now_ms: int) -> tuple[Finding, ...]:
        """As `look`; none if the history cannot be read, so that other incidents are still told."""
        try:
            return self.look(now_ms)
        except (ValueError, TypeError, KeyError, AttributeError):
            log.exception("the history cannot be judged")
            return ()

    def look(self, now_ms: int) -> tuple[Finding, ...]:
        """The open alarms at a Unix time in milliseconds. Raises RedisError."""
        if (policy := self._policy()) != self._known:
            self._known = policy
            for known in (self._minutes, self._hours, self._states):
                known.clear()
        if not policy.promises:
            return ()
        self._happened.clear()
        self._read(now_ms)
        return (*self._alarms(now_ms // MINUTE_MS), *self._slow_burns(now_ms), *self._spends(now_ms))

    def _read(self, now_ms: int) -> None:
        """Read the minutes and hours that are new, and again those that may have got more."""
        minute, hour = now_ms // MINUTE_MS, now_ms // HOUR_MS
        minutes = range(minute - HORIZON_MINUTES, minute)
        hours = range(hour - HOURS_READ, hour + 1) if self._known.alerts.slow_burn else range(0)
        _keep(self._minutes, minutes)
        _keep(self._hours, hours)
        for number, document in self._documents(minutes, self._minutes, MINUTE_MS, TIMES):
            self._minutes[number] = {scope: self._sample(scope, counts) for scope, counts in _scopes(document)}
        for number, document in self._documents(hours, self._hours, HOUR_MS, ()):
            self._hours[number] = {scope: (of.requests, of.failures) for scope, of in _scopes(document)}

    def _documents(
        self, wanted: range, known: Iterable[int], length_ms: int, times: Collection[str]
    ) -> Iterator[tuple[int, Document]]:
        """The documents with these numbers that are not known, or were not settled when they were read; with these histograms."""
        settled = {number for number in known if number < self._ends.get(length_ms, 0) - UNSETTLED}
        self._ends[length_ms] = wanted.stop
        found = numbered(self._client, [number for number in wanted if number not in settled], length_ms, times)
        for each in measured(self._client, self._known, found):
            yield each.begin_ms // length_ms, each.document

    def _sample(self, scope: Scope, of: Counts) -> Sample:
        targets = self._known.of(*scope)
        answer, first = targets.p95_answer_seconds, targets.p95_first_token_seconds
        slow = of.answer.over(answer * 1000) if answer is not None else 0
        slow_first = of.first_token.over(first * 1000) if first is not None else 0
        return Sample(of.requests, of.failures, of.answer.times, slow, of.first_token.times, slow_first, of.micros)

    def _alarms(self, minute: int) -> Iterator[Finding]:
        numbers = range(minute - HORIZON_MINUTES, minute)
        seen = {scope for known in self._minutes.values() for scope in known}
        states, self._states = self._states, {}
        for scope in sorted(seen, key=lambda each: (SCOPES.index(each[0]), each[1])):
            sums = running_sums([self._minutes.get(number, {}).get(scope, NOTHING) for number in numbers])
            mine = rules(self._known, self._known.of(*scope))
            of = [rule for rule in mine if self._is_open(scope, rule, sums, numbers, states)]
            for alarm in dict.fromkeys(rule.alarm for rule in of):
                yield self._finding(scope, [rule for rule in of if rule.alarm is alarm][::-1], sums, minute)

    def _is_open(
        self,
        scope: Scope,
        rule: Rule,
        running: Mapping[str, list[int]],
        numbers: range,
        states: Mapping[tuple[Scope, Rule], tuple[int, State]],
    ) -> bool:
        """Whether the alarm is open. The state after the last settled minute is remembered in `_states`."""
        sums = Sums(rule, running[rule.bad], running[rule.total])
        at, state = states.get((scope, rule), (numbers.start, CLOSED))
        settled, end = len(numbers) - UNSETTLED, len(numbers)
        state = sums.after(max(0, at - numbers.start), settled, state)
        self._states[scope, rule] = numbers.start + settled, state
        return sums.after(settled, end, state).open

    def _finding(self, scope: Scope, broken: list[Rule], running: Mapping[str, list[int]], minute: int) -> Finding:
        """The finding of one alarm. `broken`: its rules that hold, the most urgent first."""
        alarm, minutes = broken[0].alarm, broken[0].short or broken[0].minutes
        if minutes not in self._happened:
            recent = numbered(self._client, range(minute - minutes, minute), MINUTE_MS)
            self._happened[minutes] = together(each.document for each in recent)
        happened, what = self._happened[minutes], tuple(rule.named for rule in broken)
        route = failing_route(happened) if alarm in (Alarm.SUCCESS, Alarm.BURN) else ""
        lines = tuple(causes(alarm, happened, *scope))
        return Finding(alarm, *scope, what, _figures(broken[0], running), lines, route)

    def _slow_burns(self, now_ms: int) -> Iterator[Finding]:
        if not self._known.alerts.slow_burn:
            return
        for scope in sorted({scope for known in self._hours.values() for scope in known}):
            targets = self._known.of(*scope)
            if targets.success_percent is not None and (found := self._slow_burn(scope, targets, now_ms)):
                self._burning.add(scope)
                yield found
            else:
                self._burning.discard(scope)

    def _slow_burn(self, scope: Scope, targets: Targets, now_ms: int) -> Finding | None:
        today = datetime.fromtimestamp(now_ms / 1000, UTC)
        begin = int(datetime(today.year, today.month, 1, tzinfo=UTC).timestamp() * 1000) // HOUR_MS
        theirs = {number: of[scope] for number, of in self._hours.items() if scope in of}
        month = [of for number, of in theirs.items() if number >= begin]
        requests, failures = (sum(of[at] for of in month) for at in (0, 1))
        if requests < self._known.fewest.requests or failures < self._known.fewest.failures:
            return None
        daily = sum(each for each, _ in theirs.values()) * DAY_HOURS / _span(theirs, now_ms)
        expected = Counts(max(requests, round(daily * MONTH_DAYS)), failures)
        budget = error_budget(expected, targets.success_percent or 0)
        if (step := burns_slowly(budget.used, today.day, was=scope in self._burning)) is None:
            return None
        what = f"more than {step[1]:.0%} of the month's error budget is spent before the end of day {step[0]}"
        spent = f"{budget.spent:,} of about {budget.allowed:,.0f} failures that {expected.requests:,} requests allow"
        return Finding(Alarm.BUDGET, *scope, (what,), spent, ())

    def _spends(self, now_ms: int) -> Iterator[Finding]:
        """Budgets of which too much is used early in the month: of all jobs, tenants and features."""
        now, spend = datetime.fromtimestamp(now_ms / 1000, UTC), self._known.spend
        if not self._known.alerts.spend or now.day > spend.by_day:
            return
        for status in budget_state.standing(self._client, month_of(now)).cap_statuses.values():
            dimension, _, name = status.scope.partition(":")
            if status.step >= spend.percent and (name == "" or dimension in SCOPES):
                what = f"{spend.percent:g}% of the month's budget is used before the end of day {spend.by_day}"
                yield Finding(Alarm.SPEND, dimension if name else ALL, name, (what,), str(status), ())


def _keep(known: dict[int, Any], wanted: range) -> None:
    for number in [number for number in known if number not in wanted]:
        del known[number]


def _scopes(document: Document) -> Iterator[tuple[Scope, Counts]]:
    """All jobs, and each feature and tenant that is counted apart."""
    for dimension in SCOPES:
        for name, facts in document.facts[dimension].items():
            if name != OTHERS:
                yield (dimension, name), counts_of(facts)


def _span(hours: Iterable[int], now_ms: int) -> int:
    """The hours from the first of these up to now, at least a day's."""
    return max(DAY_HOURS, now_ms // HOUR_MS - min(hours) + 1)


def _figures(rule: Rule, running: Mapping[str, list[int]]) -> str:
    """What the window of a rule has, as text for people."""
    bad, total = (running[name][-1] - running[name][-1 - rule.minutes] for name in (rule.bad, rule.total))
    if rule.alarm is Alarm.LATENCY:
        return f"{bad:,} of {many(total, 'answer')} were slower"
    if rule.alarm is Alarm.COST:
        return f"{money(dollars(round(bad / max(1, total))))} for each of {many(total, 'request')}"
    return f"{bad:,} of {many(total, 'request')} failed"
