"""How many jobs may start: all while a route is open, probes while none is, a ramp in between."""

from __future__ import annotations

from tests.support.breaker import Clock, admitted, fail
from worker.breakers.local import RouteBreaker, Rules
from worker.control.admission import RAMP_SECONDS, AdmissionController, State


def controller(routes: int = 2, slots: int = 100) -> tuple[Clock, list[RouteBreaker], AdmissionController]:
    clock = Clock()
    breakers = [RouteBreaker(Rules(), clock) for _ in range(routes)]
    return clock, breakers, AdmissionController(breakers, slots, clock)  # type: ignore[arg-type]  # the same questions


def room(admission: AdmissionController, running: int, *, paused: bool = False) -> int:
    """The room after an update."""
    admission.update(paused=paused, ignores_breakers=False)
    return admission.room(running)


def test_while_a_route_is_open_there_is_room_for_every_slot() -> None:
    _, breakers, admission = controller()
    fail(breakers[0], 5)
    assert (room(admission, 0), room(admission, 30), room(admission, 100)) == (100, 70, 0)
    assert admission.state is State.OPEN


def test_with_none_open_there_is_room_for_probes_only() -> None:
    clock, breakers, admission = controller()
    for breaker in breakers:
        fail(breaker, 5)
    assert room(admission, 0) == 0
    assert admission.state is State.PROBING
    assert 29 < (admission.opens_in() or 0) <= 30
    clock.now += 31
    assert room(admission, 0) == 2
    assert room(admission, 1) == 1  # claimed, and not yet probing


def test_a_probe_that_hangs_keeps_no_other_route_from_its_probe() -> None:
    clock, breakers, admission = controller()
    for breaker in breakers:
        fail(breaker, 5)
    clock.now += 31
    admitted(breakers[0])
    assert room(admission, 1) == 1


def test_after_an_outage_it_ramps_up() -> None:
    clock, breakers, admission = controller(routes=1)
    fail(breakers[0], 5)
    assert room(admission, 0) == 0
    clock.now += 31
    for _ in range(2):
        breakers[0].record(admitted(breakers[0]), True)
    rooms = []
    for _ in range(4):
        rooms.append(room(admission, 0))
        clock.now += RAMP_SECONDS / 3
    assert rooms[0] == 5
    assert rooms == sorted(set(rooms))
    assert rooms[-1] == 100


def test_a_single_slot_is_never_ramped_away() -> None:
    clock, breakers, admission = controller(routes=1, slots=1)
    breakers[0].rest(5, "rate_limited")
    assert room(admission, 0) == 0
    clock.now += 5
    assert room(admission, 0) == 1


def test_a_question_changes_nothing() -> None:
    _, breakers, admission = controller(routes=1)
    fail(breakers[0], 5)
    assert [admission.room(0) for _ in range(3)] == [100] * 3
    assert (admission.state, admission.opens_in()) == (State.OPEN, None)
    assert room(admission, 0) == 0


def test_after_a_pause_it_ramps_up_too() -> None:
    clock, _, admission = controller(routes=1)
    assert room(admission, 0, paused=True) == 5  # the first claim that is let through is part of the ramp
    assert admission.state is State.PAUSED
    assert (room(admission, 0), admission.state) == (5, State.RAMPING)
    clock.now += RAMP_SECONDS
    assert (room(admission, 0), admission.state) == (100, State.OPEN)


def test_breakers_that_are_ignored_let_every_slot_through() -> None:
    _, breakers, admission = controller(routes=1)
    fail(breakers[0], 5)
    assert admission.update(paused=False, ignores_breakers=True) is State.OPEN
    assert admission.room(0) == 100
