"""A route's circuit breaker inside one process; the only file that imports pybreaker.

It protects the routes while Redis is away. Otherwise all workers share one breaker per route (registry.py), with the same
rules.

pybreaker holds a lock during the call that it guards, which would make a whole worker serial. So the HTTP call is made
outside of it, and only the result is passed to it: `admit` before an attempt, `record` after it. Three rules are ours,
because pybreaker does not have them: half-open admits one probe at a time; the result of an attempt that was admitted
before the breaker opened does not count; a neutral result is neither a failure nor a success. The cooldown is ours too,
so that the clock is an argument.

A route may also have a cooldown while its breaker is closed: its provider said when to come back (429 with Retry-After).
That is no failure.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import pybreaker

PROBE_SECONDS = 1.0  # how soon to look again while a probe is under way


@dataclass(frozen=True)
class Rules:
    """`failures` in a row open the breaker for a cooldown, which doubles with each failed probe up to the longest one;
    `successes` of probes in a row close it. The defaults are explained in docs/failures.md."""

    failures: int = 5
    successes: int = 2
    cooldown_seconds: float = 30.0
    longest_cooldown_seconds: float = 120.0


RULES = Rules()


class _RouteFailed(Exception):
    pass


def _fail() -> None:
    raise _RouteFailed


@dataclass(frozen=True)
class Permit:
    """Permission for one attempt on a route. `epoch`: the breaker's when it was given. `token`: of a shared probe."""

    epoch: int
    probe: bool
    token: str = ""


class RouteBreaker:
    """closed -> open after failures in a row -> half-open after the cooldown -> closed after successful probes."""

    def __init__(self, rules: Rules, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._rules, self._cooldown = clock, rules, rules.cooldown_seconds
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=rules.failures,
            success_threshold=rules.successes,
            throw_new_error_on_trip=False,
            listeners=[_States(self._turn)],
        )
        self._epoch = -1  # counts down, so it is never equal to an epoch of the shared breaker
        self._probing = False
        self._opened_at = self._rests_until = -math.inf
        self._rests_for = ""

    @property
    def state(self) -> str:
        """closed | open | half-open. An open breaker whose cooldown is over is half-open."""
        state = self._breaker.current_state
        return "half-open" if state == pybreaker.STATE_OPEN and self._cools_for() <= 0 else state

    def reopens_in(self) -> float:
        """Seconds until an attempt may be made, as far as is known; 0 when one may be made now."""
        if self._probing:
            return PROBE_SECONDS
        return max(0.0, self._cools_for(), self._rests_until - self._clock())

    def closed_off(self) -> str:
        """Why no attempt is admitted now, as text for people."""
        if self._rests_until > self._clock():
            return f"{self._rests_for} for {self._rests_until - self._clock():.0f} s"
        return "breaker half-open, a probe is running" if self._probing else f"breaker {self.state}"

    def rest(self, seconds: float, why: str) -> None:
        """Start a route cooldown: admit nothing for `seconds`. The provider asked for it, or the account must be fixed."""
        if self._clock() + seconds > self._rests_until:
            self._rests_until, self._rests_for = self._clock() + seconds, why

    @property
    def resting(self) -> bool:
        """Whether a route cooldown is in force."""
        return self._rests_until > self._clock()

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

    def admit(self) -> Permit | None:
        """A permit for one attempt, or None: the route is cooling down, open, or half-open with a probe under way."""
        if self._rests_until > self._clock():
            return None
        if self._breaker.current_state == pybreaker.STATE_CLOSED:
            return Permit(self._epoch, probe=False)
        if self._probing or self._cools_for() > 0:
            return None
        if self._breaker.current_state == pybreaker.STATE_OPEN:
            self._breaker.half_open()
        self._probing = True
        return Permit(self._epoch, probe=True)

    def record(self, permit: Permit, succeeded: bool | None) -> None:
        """Record the result of an admitted attempt; None is neutral. After a neutral probe the next one waits a cooldown.

        Every permit must be recorded exactly once.
        """
        if permit.epoch != self._epoch:
            return
        if permit.probe:
            self._probing = False
        if succeeded is None:
            if permit.probe:
                self.rest(self._cooldown, "half-open")
            return
        with contextlib.suppress(_RouteFailed, pybreaker.CircuitBreakerError):
            self._breaker.call(int if succeeded else _fail)

    def _cools_for(self) -> float:
        """Seconds of the open breaker's cooldown that are left; may be negative."""
        if self._breaker.current_state != pybreaker.STATE_OPEN:
            return 0.0
        return self._opened_at + self._cooldown - self._clock()

    def open_for(self, seconds: float) -> None:
        """Open the breaker now; it is half-open after `seconds`."""
        self._breaker.open()
        self._opened_at = self._clock() + seconds - self._cooldown

    def _turn(self, old: str | None, new: str) -> None:
        """pybreaker has changed its state from `old` to `new`."""
        self._epoch -= 1
        self._probing = False
        if new == pybreaker.STATE_CLOSED:
            self._cooldown = self._rules.cooldown_seconds
        if new == pybreaker.STATE_OPEN:
            self._opened_at = self._clock()
            if old == pybreaker.STATE_HALF_OPEN:
                self._cooldown = min(self._cooldown * 2, self._rules.longest_cooldown_seconds)


class _States(pybreaker.CircuitBreakerListener):
    """Calls `turn` on every change of state."""

    def __init__(self, turn: Callable[[str | None, str], None]) -> None:
        self._turn = turn

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self._turn(old_state.name if old_state else None, new_state.name)
