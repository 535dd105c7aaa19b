"""How many jobs may start: all while a route is open, probes while none is, a ramp in between."""

from __future__ import annotations

from tests.test_breaker import Clock, admitted, fail
from worker.breakers.local import RouteBreaker, Rules
from worker.control.admission import RAMP_SECONDS, Gate


def gate(routes: int = 2, slots: int = 100) -> tuple[Clock, list[RouteBreaker], Gate]:
    clock = Clock()
    breakers = [RouteBreaker(Rules(), clock) for _ in range(routes)]
    return clock, breakers, Gate(breakers, slots, clock)


def test_while_a_route_is_open_there_is_room_for_every_slot() -> None:
    _, breakers, gate_ = gate()
    fail(breakers[0], 5)
    assert (gate_.room(0), gate_.room(30), gate_.room(100)) == (100, 70, 0)
    assert not gate_.shut


def test_with_none_open_there_is_room_for_probes_only() -> None:
    clock, breakers, gate_ = gate()
    for breaker in breakers:
        fail(breaker, 5)
    assert gate_.room(0) == 0
    assert gate_.shut
    assert 29 < (gate_.opens_in() or 0) <= 30
    clock.now += 31
    assert gate_.room(0) == 2
    assert gate_.room(1) == 1  # claimed, and not yet probing


def test_a_probe_that_hangs_keeps_no_other_route_from_its_probe() -> None:
    clock, breakers, gate_ = gate()
    for breaker in breakers:
        fail(breaker, 5)
    clock.now += 31
    admitted(breakers[0])
    assert gate_.room(1) == 1


def test_after_an_outage_it_ramps_up() -> None:
    clock, breakers, gate_ = gate(routes=1)
    fail(breakers[0], 5)
    assert gate_.room(0) == 0
    clock.now += 31
    for _ in range(2):
        breakers[0].record(admitted(breakers[0]), True)
    rooms = []
    for _ in range(4):
        rooms.append(gate_.room(0))
        clock.now += RAMP_SECONDS / 3
    assert rooms[0] == 5
    assert rooms == sorted(set(rooms))
    assert rooms[-1] == 100


def test_a_single_slot_is_never_ramped_away() -> None:
    clock, breakers, gate_ = gate(routes=1, slots=1)
    breakers[0].rest(5, "rate_limited")
    assert gate_.room(0) == 0
    clock.now += 5
    assert gate_.room(0) == 1
