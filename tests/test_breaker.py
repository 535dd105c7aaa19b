"""The breaker's rules that pybreaker alone does not keep."""

from __future__ import annotations

from tests.support.breaker import Clock, admitted, fail
from worker.breakers.local import RouteBreaker, Rules


def opened(clock: Clock) -> RouteBreaker:
    breaker = RouteBreaker(Rules(), clock)
    fail(breaker, 5)
    assert breaker.state == "open"
    return breaker


def test_five_consecutive_failures_open_it() -> None:
    breaker = RouteBreaker(Rules())
    fail(breaker, 4)
    breaker.record(admitted(breaker), True)
    fail(breaker, 4)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    assert breaker.admit() is None
    assert 29 < breaker.reopens_in() <= 30


def test_half_open_admits_one_probe_at_a_time_and_two_successes_close_it() -> None:
    breaker = opened(clock := Clock())
    clock.now += 29.9
    assert breaker.admit() is None
    clock.now += 0.2
    probe = admitted(breaker)
    assert probe.probe
    assert breaker.admit() is None
    assert breaker.reopens_in() > 0
    breaker.record(probe, True)
    assert breaker.state == "half-open"
    breaker.record(admitted(breaker), True)
    assert breaker.state == "closed"


def test_each_failed_probe_doubles_the_cooldown_up_to_a_cap_until_it_closes() -> None:
    breaker = opened(clock := Clock())
    for cooldown in (60, 120, 120):
        clock.now += breaker.reopens_in()
        breaker.record(admitted(breaker), True)
        breaker.record(admitted(breaker), False)
        assert breaker.state == "open"
        assert breaker.reopens_in() == cooldown
    clock.now += breaker.reopens_in()
    for _ in range(2):
        breaker.record(admitted(breaker), True)
    fail(breaker, 5)
    assert breaker.reopens_in() == 30


def test_a_neutral_probe_frees_its_place_after_a_cooldown() -> None:
    breaker = opened(clock := Clock())
    clock.now += 31
    breaker.record(admitted(breaker), None)
    assert breaker.state == "half-open"
    assert breaker.admit() is None
    clock.now += 31
    assert admitted(breaker).probe


def test_a_neutral_outcome_neither_counts_nor_resets() -> None:
    breaker = RouteBreaker(Rules())
    fail(breaker, 4)
    breaker.record(admitted(breaker), None)
    fail(breaker, 1)
    assert breaker.state == "open"


def test_results_from_before_the_opening_settle_nothing() -> None:
    breaker = RouteBreaker(Rules(), clock := Clock())
    early_good, early_bad = admitted(breaker), admitted(breaker)
    fail(breaker, 5)
    breaker.record(early_good, True)
    assert breaker.state == "open"
    clock.now += 31
    probe = admitted(breaker)
    breaker.record(early_good, True)
    breaker.record(early_bad, False)
    assert breaker.state == "half-open"
    assert breaker.admit() is None  # the probe is still under way
    breaker.record(probe, True)
    breaker.record(admitted(breaker), True)
    assert breaker.state == "closed"


def test_a_resting_route_admits_nothing_and_has_not_failed() -> None:
    breaker = RouteBreaker(Rules(), clock := Clock())
    breaker.rest(10, "rate_limited")
    assert breaker.admit() is None
    assert breaker.state == "closed"
    assert breaker.closed_off() == "rate_limited for 10 s"
    clock.now += 10
    assert not admitted(breaker).probe
