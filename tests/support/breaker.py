"""A clock that a test moves, and a breaker that fails."""

from __future__ import annotations

from worker.breakers.local import Permit, RouteBreaker


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(breaker: RouteBreaker) -> Permit:
    admission = breaker.admit()
    assert admission is not None
    return admission


def fail(breaker: RouteBreaker, times: int) -> None:
    for _ in range(times):
        breaker.record(admitted(breaker), False)
