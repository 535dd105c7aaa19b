"""Admission: how many jobs a worker may start now, as explicit states.

- OPEN: as many as there are free slots.
- PROBING, while no route is open: as many as this worker holds probe permits. An outage of all providers then costs only
  probes, and the jobs stay in the queue.
- PAUSED, by operators or by a budget: the first claim after it is small.
- RAMPING, after PROBING or PAUSED: more and more jobs, so that the backlog does not overload a provider that has just
  recovered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from enum import Enum, auto

from worker.breakers.shared import SharedBreaker

RAMP_SECONDS = 20.0  # from the first share of the slots to all slots
RAMP_FIRST_SHARE = 0.05  # of the slots


class State(Enum):
    OPEN = auto()
    PROBING = auto()
    PAUSED = auto()
    RAMPING = auto()


class AdmissionController:
    """`slots`: how many jobs the worker runs at once. Only `update` changes the state; the other methods read it."""

    def __init__(
        self, breakers: Collection[SharedBreaker], slots: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._breakers, self._slots, self._clock = breakers, slots, clock
        self._ramps_since = 0.0  # clock time
        self.state = State.OPEN

    def update(self, *, paused: bool, ignores_breakers: bool) -> State:
        """Update the state and return it. `paused`: no job may start in any of the worker's queues. `ignores_breakers`:
        claim jobs although no route is open (ENABLE_COLD_QUEUE is off, or BYPASS_ROUTER is on)."""
        self.state = self._next(paused, ignores_breakers)
        return self.state

    def _next(self, paused: bool, ignores_breakers: bool) -> State:
        if not ignores_breakers and not any(breaker.open_for_all() for breaker in self._breakers):
            return State.PROBING
        if paused:
            return State.PAUSED
        if self.state in (State.PROBING, State.PAUSED):
            self._ramps_since = self._clock()
            return State.RAMPING
        if self.state is State.RAMPING and self._clock() - self._ramps_since < RAMP_SECONDS:
            return State.RAMPING
        return State.OPEN

    def room(self, running: int) -> int:
        """How many more jobs may start when `running` jobs run, by the state of the last update."""
        return max(0, min(self._slots - running, self._limit(running) - running))

    def _limit(self, running: int) -> int:
        """How many jobs may run at once in the present state."""
        match self.state:
            case State.OPEN:
                return self._slots
            case State.PROBING:
                probes = sum(breaker.may_probe() for breaker in self._breakers)
                on_their_way = running - sum(breaker.probing for breaker in self._breakers)
                return running + probes - max(0, on_their_way)
            case State.PAUSED:
                return self._share(0.0)
            case State.RAMPING:
                return self._share((self._clock() - self._ramps_since) / RAMP_SECONDS)

    def _share(self, passed: float) -> int:
        """The number of slots in use at a point of the ramp; `passed`: the part of the ramp that is over, 0..1."""
        return max(1, int(self._slots * (RAMP_FIRST_SHARE + (1 - RAMP_FIRST_SHARE) * min(passed, 1.0))))

    @property
    def probing(self) -> bool:
        """Whether no route was open at the last update."""
        return self.state is State.PROBING

    def opens_in(self) -> float | None:
        """Seconds until a probe may be made; None when a route was open at the last update."""
        return min(breaker.reopens_in() for breaker in self._breakers) if self.probing else None
