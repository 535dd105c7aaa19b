"""Objectives as pure functions: indicators, error budget, burn, and when alarms open and close."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.environment import packaged
from producer.errors import ConfigurationError
from producer.job import DeadReason
from worker.history.document import COST, Facts, bucket_of
from worker.objectives.alarms import CLEAR_MINUTES, CLOSED, Alarm, Rule, Sample, Sums, burns_slowly, rules, running_sums
from worker.objectives.indicators import LEFT_OUT, Counts, Sli, burn_rate, counts_of, error_budget, indicators
from worker.objectives.policy import SloPolicy, Targets, load_slo_policy

POLICY = SloPolicy(targets=Targets(success_percent=99.5, p95_answer_seconds=2.5, average_cost_usd=0.015))
RULES = rules(POLICY, POLICY.targets)
FIVE, HOUR = (next(r for r in RULES if r.alarm is Alarm.SUCCESS and r.minutes == m) for m in (5, 60))
SLOW = next(rule for rule in RULES if rule.alarm is Alarm.LATENCY)


class Share(NamedTuple):
    """`bad` of `total` in one minute."""

    bad: int
    total: int


GOOD, BAD = Share(0, 40), Share(20, 40)


def states(shares: Sequence[Share], rule: Rule) -> list[bool]:
    """Whether the alarm is open after each minute, as a notifier sees it that looks after every minute."""
    bad, total = ([0, *accumulate(share[at] for share in shares)] for at in (0, 1))
    state, seen = CLOSED, []
    for minute in range(len(shares)):
        state = Sums(rule, bad, total).after(minute, minute + 1, state)
        seen.append(state.open)
    assert Sums(rule, bad, total).after(0, len(shares)) == state  # one that takes over sees the same
    return seen


def openings(shares: Sequence[Share], rule: Rule) -> list[int]:
    """The minutes at whose end the alarm opened."""
    seen = [False, *states(shares, rule)]
    return [minute for minute, (before, after) in enumerate(pairwise(seen)) if after and not before]


def test_failures_are_ours_and_a_clients_own_mistakes_are_left_out() -> None:
    facts = Facts({"done": 970, "late": 4, "dead": 30, "dead exhausted": 5, "dead expired": 1, "micros": 9_760_000})
    for reason in LEFT_OUT:
        facts.count(f"dead {reason}", 4)
    facts.count("dead failed_by_rq", 4)
    assert {*LEFT_OUT} == {*DeadReason} - {"exhausted", "expired", "crashed", "failed_by_rq"}
    for ms, cost in [(1000, 5_000)] * 95 + [(4000, 40_000)] * 5:
        facts.time("answer", bucket_of(ms))
        facts.time(COST, bucket_of(cost))
    counts = counts_of(facts)
    assert (counts.requests, counts.failures) == (980, 14)
    found = {each.sli: each for each in indicators(counts, POLICY.targets)}
    assert found[Sli.SUCCESS].value == pytest.approx(100 * 966 / 980) and found[Sli.SUCCESS].met is False
    assert found[Sli.ANSWER].value == pytest.approx(1, rel=0.02) and found[Sli.ANSWER].met is True
    assert found[Sli.AVERAGE_COST].value == pytest.approx(9.76 / 980)
    assert found[Sli.P95_COST].value == pytest.approx(0.005, rel=0.02) and found[Sli.P95_COST].met is None
    assert found[Sli.FIRST_TOKEN].value is None


def test_a_target_that_is_just_met_is_met_and_nothing_measured_is_neither() -> None:
    (success, *_) = indicators(Counts(requests=1000, failures=5), POLICY.targets)
    assert success.met is True
    assert all(each.met is None for each in indicators(Counts(), POLICY.targets))
    assert burn_rate(Counts(), 99.5) is None


def test_the_error_budget_and_the_burn_rate_are_those_of_the_kit() -> None:
    budget = error_budget(Counts(requests=10_000, failures=20), 99.5)
    assert budget.allowed == pytest.approx(50) and budget.left == pytest.approx(30)
    assert budget.used == pytest.approx(0.4)
    assert burn_rate(Counts(requests=10_000, failures=50), 99.5) == pytest.approx(1)
    assert burn_rate(Counts(requests=1000, failures=72), 99.5) == pytest.approx(14.4)


@pytest.mark.parametrize(
    ("used", "day", "was", "step"),
    [
        (0.51, 15, False, (15, 0.5)),
        (0.5, 15, False, None),
        (0.51, 16, False, None),
        (0.81, 16, False, (25, 0.8)),
        (0.81, 26, False, None),
        (0.9, 3, False, (25, 0.8)),
        (0.46, 10, True, (15, 0.5)),
        (0.44, 10, True, None),
    ],
)
def test_a_slow_burn_is_half_by_day_15_or_most_by_day_25(
    used: float, day: int, was: bool, step: tuple[int, float] | None
) -> None:
    assert burns_slowly(used, day, was=was) == step


@pytest.mark.parametrize("rule", [FIVE, HOUR, SLOW])
def test_an_alarm_opens_when_its_window_is_bad_and_not_for_a_shorter_time(rule: Rule) -> None:
    part = rule.minutes // 5
    (at,) = openings([GOOD] * 90 + [BAD] * rule.minutes + [GOOD] * 30, rule)
    assert 90 + rule.minutes - part <= at < 90 + rule.minutes
    assert openings([GOOD] * 90 + [BAD] * (rule.minutes - 2 * part) + [GOOD] * 90, rule) == []


def test_it_closes_after_the_target_is_met_for_a_while() -> None:
    still = states([BAD] * 10 + [GOOD] * 20, FIVE)
    assert still.index(True) == 4
    assert 10 + CLEAR_MINUTES <= len(still) - still[::-1].index(True) <= 10 + 2 * CLEAR_MINUTES
    assert states([BAD] * 10 + [Share(0, 0)] * 4, FIVE)[-1]  # nobody knows whether it is over
    assert not states([BAD] * 10 + [Share(0, 0)] * 60, FIVE)[-1]


def test_few_requests_alarm_nobody() -> None:
    night = [Share(0, 0)] * 100 + [Share(1, 2)] + [Share(0, 0)] * 200
    assert all(openings(night, rule) == [] for rule in RULES if rule.alarm in (Alarm.SUCCESS, Alarm.BURN))
    assert openings([Share(2, 4)] * 4 + [Share(0, 4)] * 30, FIVE) == []
    assert openings([Share(1, 1), *[Share(0, 0)] * 19] * 12, FIVE) == []


def test_one_failure_of_two_requests_an_hour_burns_nothing() -> None:
    hours = [Share(0, 0)] * 59 + [Share(1, 2)]
    day = [Share(0, 1)] * 400 + hours * 6
    assert all(openings(day, rule) == [] for rule in RULES if rule.alarm is Alarm.BURN)


def test_one_good_answer_of_few_closes_nothing() -> None:
    few = [Share(1, 1), Share(0, 0), Share(0, 0)]
    shares = [Share(6, 6)] * 20 + few * 20 + [Share(0, 1)] + few * 20
    assert len(openings(shares, SLOW)) == 1 and states(shares, SLOW)[-1]


def test_a_rule_that_is_switched_off_is_none() -> None:
    off = POLICY.model_copy(update={"alerts": POLICY.alerts.model_copy(update={"burn_1h_5m": False, "latency": False})})
    named = {rule.named for rule in RULES} - {rule.named for rule in rules(off, off.targets)}
    assert named == {
        "failures are more than 14.4 times as many as promised, over 1 hour",
        "more than 1 in 20 answers come later than 2.5 s, for 15 minutes",
    }
    assert rules(POLICY, Targets()) == []


minutes = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda n: Share(min(n), max(n))), max_size=100)


@settings(max_examples=30, deadline=None)
@given(minutes, st.sampled_from(RULES))
def test_no_series_makes_an_alarm_flap(shares: list[Share], rule: Rule) -> None:
    opens = openings(shares, rule)
    assert all(later - earlier > CLEAR_MINUTES for earlier, later in pairwise(opens))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=100), st.sampled_from(RULES), st.integers(0, 60))
def test_a_target_that_is_met_alarms_nobody_and_one_that_is_never_met_always_does(
    totals: list[int], rule: Rule, begin: int
) -> None:
    assert openings([Share(int(rule.limit * total), total) for total in totals], rule) == []
    bad = [GOOD if at < begin else Share(round(40 * max(1, 2 * rule.limit)), 40) for at in range(begin + rule.minutes)]
    (at,) = openings(bad, rule)
    assert begin <= at < begin + rule.minutes


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=70, max_size=100), st.sampled_from([FIVE, HOUR]))
def test_a_few_bad_requests_here_and_there_alarm_nobody(kinds: list[bool], rule: Rule) -> None:
    seldom = [Share(1, 1) if bad and at % 4 == 0 else Share(0, 0) for at, bad in enumerate(kinds)]
    assert openings(seldom, rule) == []  # never as many as `fewest` in one window


def test_samples_give_each_rule_its_share() -> None:
    running = running_sums([Sample(), Sample(requests=10, failures=2, answers=8, slow=3, micros=150_000)])
    assert {(rule.alarm, running[rule.bad][-1], running[rule.total][-1]) for rule in RULES} == {
        (Alarm.SUCCESS, 2, 10),
        (Alarm.BURN, 2, 10),
        (Alarm.LATENCY, 3, 8),
        (Alarm.COST, 150_000, 10),
    }
    assert running_sums([])["requests"] == [0]


def test_targets_of_a_feature_or_tenant_differ_only_in_what_they_name(tmp_path: Path) -> None:
    (tmp_path / "slo.yaml").write_text(
        "targets: {success_percent: 99.5, p95_answer_seconds: 30}\n"
        "tenants: {acme: {success_percent: 99.9}}\nfeatures: {batch: {p95_answer_seconds: null}}\n"
    )
    policy = load_slo_policy({"POLICIES_DIR": str(tmp_path)})
    assert policy.of("tenant", "acme") == Targets(success_percent=99.9, p95_answer_seconds=30)
    assert policy.of("feature", "batch") == Targets(success_percent=99.5)
    assert policy.of("all", "") == policy.of("tenant", "globex") == policy.targets


def test_the_packaged_policy_has_the_defaults_and_promises_nothing() -> None:
    policy = load_slo_policy({"POLICIES_DIR": str(packaged("policies"))})
    assert policy == SloPolicy() and not policy.promises


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("version: 1\ntargets:\n  success_percent: 100\n", ":3: targets.success_percent", "less than 100"),
        ("tenants:\n  acme:\n    sucess: 1\n", ":3: tenants.acme.sucess", "is not a field here"),
        (
            "maintenance:\n  windows:\n    - {begin: 2026-12-05 02:00:00, end: 2026-12-05 03:01:00, why: x}\n",
            ":1: maintenance",
            "longer than 60 minutes",
        ),
        (
            "maintenance:\n  windows:\n    - {begin: 2026-12-05 02:00:30, end: 2026-12-05 02:30:00, why: x}\n",
            ":3: maintenance.windows.0.begin",
            "a whole minute",
        ),
        (
            "maintenance:\n  windows:\n    - {begin: 2026-12-05 02:00:00, end: 2026-12-05 02:00:00, why: x}\n",
            ":3: maintenance.windows.0",
            "end must be later than begin",
        ),
        (
            "abuse:\n  - {tenant: a, begin: 2026-12-05 02:30:00, end: 2026-12-05 03:00:00, why: x}\n",
            ":2: abuse.0.begin",
            "a whole hour",
        ),
    ],
)
def test_a_wrong_policy_names_its_line_and_field(tmp_path: Path, text: str, where: str, what: str) -> None:
    (tmp_path / "slo.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load_slo_policy({"POLICIES_DIR": str(tmp_path)})
    assert where in str(raised.value) and what in str(raised.value)
