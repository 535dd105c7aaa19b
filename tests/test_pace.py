"""What the worker sends waits for company only where much is sent."""

from __future__ import annotations

import pytest

from worker.queue.batcher import ENOUGH, RECENT_SECONDS, Pace


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("worker.queue.batcher.time.monotonic", lambda: clock.now)
    return clock


def of(clock: Clock, a_second: float, seconds: float = 3.0) -> list[bool]:
    """What a pace says while things come one by one."""
    pace, said = Pace(), []
    for _ in range(int(seconds * a_second)):
        clock.now += 1 / a_second
        pace.came()
        said.append(pace.pays(1))
    return said


@pytest.mark.parametrize("a_second", [1, 20, 100, 180])
def test_few_a_second_wait_for_nothing(clock: Clock, a_second: float) -> None:
    assert not any(of(clock, a_second))


@pytest.mark.parametrize("a_second", [230, 1000, 5000])
def test_many_a_second_share_round_trips(clock: Clock, a_second: float) -> None:
    said = of(clock, a_second)
    assert not said[0]
    assert all(said[int(len(said) / 3) :])


def test_a_burst_is_over_soon(clock: Clock) -> None:
    pace = Pace()
    pace.came(200)
    assert pace.pays(1)
    clock.now += 2 * RECENT_SECONDS
    assert not pace.pays(1)


def test_enough_at_hand_does_not_wait_for_more(clock: Clock) -> None:
    pace = Pace()
    pace.came(200)
    assert pace.pays(ENOUGH - 1)
    assert not pace.pays(ENOUGH)
