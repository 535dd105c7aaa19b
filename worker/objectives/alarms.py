"""When an alarm opens and closes: pure functions over minutes.

Each rule is a limit on a share: failures of requests, slow answers of all answers, micro-dollars of requests. A p95 is over
its target exactly if more than 5 % of the answers are slower than it, so the shares of any minutes can be added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from worker.objectives.indicators import SHARE
from worker.objectives.policy import SloPolicy, Targets

PARTS = (
    5  # of a window: a target is missed for its length if it is missed in the first part, and in all that have requests
)
FEW = 5  # requests: fewer recent ones close no alarm, because one of them would decide
CLEAR_MINUTES = 5  # an alarm closes after so many minutes without its reason
FAST_BURN, FAST_BURN_MINUTES = 2.0, 60  # the fast burn of the reliability kit
SHORT_MINUTES = 5  # beside an hour, as the workbook has it: an alarm does not outlast its reason
# of the SRE workbook: rate, long and short minutes; the most urgent last
PAIRS = {"burn_6h_30m": (6.0, 360, 30), "burn_1h_5m": (14.4, 60, 5)}
LONGEST_MINUTES = 360
SLOW_BURN = ((15, 0.5), (25, 0.8))  # of the kit: up to this day of the month, more than this share of the error budget
ENDS_AT = 0.9  # of that share, so that the estimate of a month's requests opens and closes nothing


class Alarm(StrEnum):
    """What is wrong."""

    SUCCESS = "success"
    LATENCY = "latency"
    COST = "cost"
    BURN = "burn"
    BUDGET = "budget"
    SPEND = "spend"


class Sample(NamedTuple):
    """What happened in one minute to one scope, as the rules need it. `slow`, `slow_first`: more than their targets."""

    requests: int = 0
    failures: int = 0
    answers: int = 0
    slow: int = 0
    firsts: int = 0
    slow_first: int = 0
    micros: int = 0


@dataclass(frozen=True)
class Rule:
    """Opens if more than `limit` of the last `minutes` is bad, of at least `requests`, and at least `fewest_bad` are. It must
    also be so now: in the last `short` minutes; or without them, in the first of PARTS parts of the window, and in each that
    has requests. `bad`, `total`: the fields of Sample. `named`: what is then wrong."""

    alarm: Alarm
    named: str
    bad: str
    total: str
    minutes: int
    limit: float
    requests: int
    fewest_bad: int = 1
    short: int = 0

    @property
    def recent(self) -> int:
        """The minutes that must meet the target before it closes."""
        return self.short or max(CLEAR_MINUTES, self.minutes // 3)


def running_sums(samples: Sequence[Sample]) -> dict[str, list[int]]:
    """The running sums of each field of Sample."""
    columns = zip(*samples, strict=True) if samples else [()] * len(Sample._fields)
    return {name: [0, *accumulate(column)] for name, column in zip(Sample._fields, columns, strict=True)}


def rules(policy: SloPolicy, targets: Targets) -> list[Rule]:
    """The rules for a scope with these targets, the more urgent of each alarm last."""
    found, on, fewest = [], policy.alerts, policy.fewest
    if (success := targets.success_percent) is not None:
        allowed, failed = 1 - success / 100, ("failures", "requests")
        least = fewest.requests, fewest.failures
        if on.success:
            for minutes in (5, 60):
                named = f"success is under {success:g}% for {minutes} minutes"
                found.append(Rule(Alarm.SUCCESS, named, *failed, minutes, allowed, *least))
        burns = {"fast_burn": (FAST_BURN, FAST_BURN_MINUTES, SHORT_MINUTES), **PAIRS}
        for name, (rate, long, short) in burns.items():
            if getattr(on, name):
                named = f"failures are more than {rate:g} times as many as promised, over {_span(long)}"
                found.append(Rule(Alarm.BURN, named, *failed, long, rate * allowed, *least, short))
    for seconds, what, slow in (
        (targets.p95_answer_seconds, "come", ("slow", "answers")),
        (targets.p95_first_token_seconds, "begin", ("slow_first", "firsts")),
    ):
        if on.latency and seconds is not None:
            named = f"more than 1 in 20 answers {what} later than {seconds:g} s, for 15 minutes"
            found.append(Rule(Alarm.LATENCY, named, *slow, 15, 1 - SHARE, fewest.requests))
    if on.cost and (usd := targets.average_cost_usd) is not None:
        named = f"a request costs more than ${usd:g} on average for 15 minutes"
        found.append(Rule(Alarm.COST, named, "micros", "requests", 15, usd * 1e6, fewest.requests))
    return found


def _span(minutes: int) -> str:
    return "1 hour" if minutes == 60 else f"{minutes // 60} hours"


class State(NamedTuple):
    """Of an alarm. `calm`: for so many minutes its reason has been gone."""

    open: bool = False
    calm: int = 0


CLOSED = State()


class Sums:
    """Sums over any minutes of a series, at once. `bad`, `total`: running sums, which begin with 0."""

    def __init__(self, rule: Rule, bad: Sequence[int], total: Sequence[int]) -> None:
        self._rule, self._bad, self._total = rule, bad, total

    def after(self, begin: int, end: int, state: State = CLOSED) -> State:
        """The state after the minutes from `begin` up to `end`, if it was `state` before.

        An alarm that opened closes when for CLEAR_MINUTES neither its window was bad nor the `recent` minutes missed the
        target. So two openings are always further apart than that.
        """
        for minute in range(begin, end):
            if not state.open:
                state = State(open=self.bad_at(minute + 1))
            elif not self.calm_at(minute + 1):
                state = State(open=True)
            else:
                state = State(open=True, calm=state.calm + 1) if state.calm + 1 < CLEAR_MINUTES else CLOSED
        return state

    def _over(self, begin: int, end: int) -> bool | None:
        """Whether too much is bad from minute `begin` up to `end`; None without requests."""
        begin, end = max(0, begin), max(0, end)
        total = self._total[end] - self._total[begin]
        return self._bad[end] - self._bad[begin] > self._rule.limit * total if total > 0 else None

    def bad_at(self, end: int) -> bool:
        """Whether the rule holds at the end of minute `end` - 1."""
        rule, begin = self._rule, max(0, end - self._rule.minutes)
        enough = self._total[end] - self._total[begin] >= rule.requests
        if not enough or self._bad[end] - self._bad[begin] < rule.fewest_bad or not self._over(begin, end):
            return False
        if rule.short:
            short = max(0, end - rule.short)
            return self._bad[end] - self._bad[short] >= rule.fewest_bad and bool(self._over(short, end))
        length = rule.minutes // PARTS
        first, *others = [self._over(part, part + length) for part in range(end - rule.minutes, end, length)]
        return first is True and all(each is not False for each in others)

    def calm_at(self, end: int) -> bool:
        """Whether the target is met again: by the recent minutes, or by the whole window where they have few requests."""
        if self.bad_at(end):
            return False
        recent = max(0, end - self._rule.recent)
        few = self._total[end] - self._total[recent] < FEW
        return not self._over(end - self._rule.minutes if few else recent, end)


def burns_slowly(used: float, day: int, *, was: bool) -> tuple[int, float] | None:
    """(day, share) of the step of SLOW_BURN that is passed on this day of the month; None for none. `used`: share of the
    month's error budget. `was`: whether a step was passed at the last look."""
    passed = [(last, share) for last, share in SLOW_BURN if day <= last and used > share * (ENDS_AT if was else 1)]
    return max(passed, default=None)
