"""The breaker's rules that pybreaker alone does not keep."""

from __future__ import annotations

from tests.conftest import until
from worker.breaker import Admission, RouteBreaker


def admitted(breaker: RouteBreaker) -> Admission:
    admission = breaker.admit()
    assert admission is not None
    return admission


def fail(breaker: RouteBreaker, times: int) -> None:
    for _ in range(times):
        breaker.record(admitted(breaker), False)


def test_five_consecutive_failures_open_it() -> None:
    breaker = RouteBreaker()
    fail(breaker, 4)
    breaker.record(admitted(breaker), True)
    fail(breaker, 4)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    assert breaker.admit() is None
    assert 29 < breaker.reopens_in() <= 30
    assert list(breaker.health) == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_half_open_admits_one_probe_at_a_time_and_two_successes_close_it() -> None:
    breaker = RouteBreaker(cooldown_seconds=0.05)
    fail(breaker, 5)
    probe = until(breaker.admit, "the cooldown ends")
    assert probe.probe
    assert breaker.admit() is None
    breaker.record(probe, True)
    assert breaker.state == "half-open"
    breaker.record(admitted(breaker), True)
    assert breaker.state == "closed"


def test_a_failed_probe_opens_it_again() -> None:
    breaker = RouteBreaker(cooldown_seconds=0.05)
    fail(breaker, 5)
    breaker.record(until(breaker.admit, "the cooldown ends"), False)
    assert breaker.state in ("open", "half-open")
    assert until(breaker.admit, "the cooldown ends again").probe


def test_a_neutral_probe_frees_its_place() -> None:
    breaker = RouteBreaker(cooldown_seconds=0.05)
    fail(breaker, 5)
    breaker.record(until(breaker.admit, "the cooldown ends"), None)
    assert admitted(breaker).probe


def test_a_neutral_outcome_neither_counts_nor_resets() -> None:
    breaker = RouteBreaker()
    fail(breaker, 4)
    breaker.record(admitted(breaker), None)
    fail(breaker, 1)
    assert breaker.state == "open"


def test_results_from_before_the_opening_settle_nothing() -> None:
    breaker = RouteBreaker(cooldown_seconds=0.05)
    early_good, early_bad = admitted(breaker), admitted(breaker)
    fail(breaker, 5)
    breaker.record(early_good, True)
    assert breaker.state in ("open", "half-open")
    probe = until(breaker.admit, "the cooldown ends")
    breaker.record(early_good, True)
    breaker.record(early_bad, False)
    assert breaker.state == "half-open"
    assert breaker.admit() is None  # the probe is still under way
    breaker.record(probe, True)
    breaker.record(admitted(breaker), True)
    assert breaker.state == "closed"


def test_a_resting_route_admits_nothing_and_has_not_failed() -> None:
    breaker = RouteBreaker()
    breaker.rest(0.1)
    assert breaker.admit() is None
    assert breaker.state == "closed"
    assert "rate limited" in breaker.closed_off()
    assert not until(breaker.admit, "the rest is over").probe
