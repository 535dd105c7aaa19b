"""One circuit breaker per route, and the only file that knows pybreaker.

pybreaker guards a call while holding a lock, which would serialise a whole worker; so the HTTP call stays outside and
only its bookkeeping goes through: `admit` before an attempt, `record` after it. Three things are ours, because
pybreaker does not keep them: half-open admits one probe at a time; a result from before the opening settles nothing;
a neutral outcome is neither a failure nor a success. The cooldown is ours too, on a clock that is an argument.

Beside the breaker a route may rest: its provider said when to come back (429 with Retry-After). That is no failure.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import pybreaker

OPEN_AFTER_FAILURES = 5
COOLDOWN_SECONDS = 30.0
CLOSE_AFTER_SUCCESSES = 2
HEALTH_LENGTH = 20
PROBE_SECONDS = 1.0  # how soon to look again while a probe is under way


class _RouteFailed(Exception):
    pass


def _fail() -> None:
    raise _RouteFailed


@dataclass(frozen=True)
class Admission:
    """Leave to make one attempt on a route, given while the breaker was in its `epoch`."""

    epoch: int
    probe: bool


class RouteBreaker:
    """closed -> open after consecutive failures -> half-open after the cooldown -> closed after probes that succeed."""

    def __init__(
        self,
        *,
        failures: int = OPEN_AFTER_FAILURES,
        cooldown_seconds: float = COOLDOWN_SECONDS,
        successes: int = CLOSE_AFTER_SUCCESSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._cooldown = clock, cooldown_seconds
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures,
            success_threshold=successes,
            throw_new_error_on_trip=False,
            listeners=[_States(self._turn)],
        )
        self._epoch = 0
        self._probing = False
        self._opened_at = self._rests_until = -math.inf
        self._rests_for = ""
        self.health: deque[int] = deque(maxlen=HEALTH_LENGTH)  # 1 success, 0 failure, newest last

    @property
    def state(self) -> str:
        """closed | open | half-open; an open one whose cooldown is over is half-open."""
        state = self._breaker.current_state
        return "half-open" if state == pybreaker.STATE_OPEN and self._cools_for() <= 0 else state

    def reopens_in(self) -> float:
        """Seconds until an attempt may be made, as far as is known; 0 when one may be made now."""
        if self._probing:
            return PROBE_SECONDS
        return max(0.0, self._cools_for(), self._rests_until - self._clock())

    def closed_off(self) -> str:
        """Why no attempt is admitted now."""
        if self._rests_until > self._clock():
            return f"{self._rests_for} for {self._rests_until - self._clock():.0f} s"
        return "breaker half-open, its probe under way" if self._probing else f"breaker {self.state}"

    def rest(self, seconds: float, why: str) -> None:
        """Admit nothing for `seconds`: the provider asked for it, or the account has to be mended first."""
        if self._clock() + seconds > self._rests_until:
            self._rests_until, self._rests_for = self._clock() + seconds, why

    @property
    def probing(self) -> bool:
        """Whether a probe is under way."""
        return self._probing

    def open_for_all(self) -> bool:
        """Whether any number of attempts would be admitted now."""
        return self._breaker.current_state == pybreaker.STATE_CLOSED and self._rests_until <= self._clock()

    def may_probe(self) -> bool:
        """Whether exactly one attempt would be admitted now."""
        return not self.open_for_all() and not self._probing and self.reopens_in() <= 0

    def admit(self) -> Admission | None:
        """Leave for one attempt, or None: the route rests, is open, or half-open with its probe under way."""
        if self._rests_until > self._clock():
            return None
        if self._breaker.current_state == pybreaker.STATE_CLOSED:
            return Admission(self._epoch, probe=False)
        if self._probing or self._cools_for() > 0:
            return None
        if self._breaker.current_state == pybreaker.STATE_OPEN:
            self._breaker.half_open()
        self._probing = True
        return Admission(self._epoch, probe=True)

    def record(self, admission: Admission, succeeded: bool | None) -> None:
        """What the admitted attempt showed; None is neutral: a probe that shows nothing is made again after a cooldown.

        Every admission is recorded exactly once.
        """
        if succeeded is not None:
            self.health.append(int(succeeded))
        if admission.epoch != self._epoch:
            return
        if admission.probe:
            self._probing = False
        if succeeded is None:
            if admission.probe:
                self.rest(self._cooldown, "half-open")
            return
        if succeeded:
            self._breaker.call(int)
            return
        try:
            self._breaker.call(_fail)
        except (_RouteFailed, pybreaker.CircuitBreakerError):
            return

    def _cools_for(self) -> float:
        if self._breaker.current_state != pybreaker.STATE_OPEN:
            return 0.0
        return self._opened_at + self._cooldown - self._clock()

    def _turn(self, state: str) -> None:
        self._epoch += 1
        self._probing = False
        if state == pybreaker.STATE_OPEN:
            self._opened_at = self._clock()


class _States(pybreaker.CircuitBreakerListener):
    """Tells of every change of state."""

    def __init__(self, turn: Callable[[str], None]) -> None:
        self._turn = turn

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self._turn(new_state.name)
