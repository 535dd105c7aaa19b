"""How many jobs a worker may start now.

While a route is open: as many as there are slots. While none is: only as many as this worker holds leave to probe, so an outage
of all providers costs probes and nothing else, and no job leaves the queue to wait elsewhere. After it: a ramp, so that
the backlog does not fall on a provider that has just got up. The same ramp follows a pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from worker.breakers.shared import SharedBreaker

RAMP_SECONDS = 20.0  # from the first few to all slots
RAMP_FIRST_SHARE = 0.05


class Gate:
    """`regardless`: it never shuts, however the routes stand: jobs that none can take do not wait, or no breaker is asked."""

    def __init__(
        self, breakers: Collection[SharedBreaker], slots: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._breakers, self._slots, self._clock = breakers, slots, clock
        self.regardless = False
        self.paused = False  # by an operator or the budget; claims start nothing meanwhile
        self._was_paused = False
        self._shut = False
        self._reopened_at: float | None = None  # by the clock

    def room(self, running: int) -> int:
        """How many more jobs may start beside `running` ones."""
        free = self._slots - running
        if not self.regardless and not any(breaker.open_for_all() for breaker in self._breakers):
            self._shut = True
            probes = sum(breaker.may_probe() for breaker in self._breakers)
            on_their_way = running - sum(breaker.probing for breaker in self._breakers)
            return max(0, min(free, probes - max(0, on_their_way)))
        if self.paused:
            self._was_paused = True  # the first claim that is let through is part of the ramp
            return max(0, min(free, max(1, int(self._slots * RAMP_FIRST_SHARE)) - running))
        if self._shut or self._was_paused:
            self._shut, self._was_paused, self._reopened_at = False, False, self._clock()
        if self._reopened_at is None:
            return free
        passed = (self._clock() - self._reopened_at) / RAMP_SECONDS
        if passed >= 1:
            self._reopened_at = None
            return free
        share = RAMP_FIRST_SHARE + (1 - RAMP_FIRST_SHARE) * passed
        return max(0, min(free, max(1, int(self._slots * share)) - running))

    @property
    def shut(self) -> bool:
        """Whether no route was open when it was last asked for room."""
        return self._shut

    def opens_in(self) -> float | None:
        """Seconds until a probe may be made; None while a route is open for all."""
        if not self._shut:
            return None
        return min(breaker.reopens_in() for breaker in self._breakers)
