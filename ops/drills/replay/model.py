"""A worker's decisions in simulated time: routes in order, retries, real breakers, deadlines, parking, executions.

The breakers are the worker's own class with a simulated clock; orders, deadlines, backoff and executions are those of routes.json
and jobs.yaml. What is a model: the providers (answers take a time by their tokens, and fail as the incident says), one worker,
no limits of rate. The same seed gives the same figures.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from ops.drills.replay.data import Arrival, Window
from producer.policy import JobPolicy
from worker.breakers.local import RULES, RouteBreaker
from worker.routes.route import Route
from worker.routing.backoff import FIRST_SECONDS, MAX_SECONDS

ATTEMPTS_A_ROUTE = 3  # of one execution (worker/routing/router.py)
FAILS_AFTER_SECONDS = 0.4  # a 503
BASE_SECONDS, TOKENS_A_SECOND = 0.6, 55.0  # of an answer: the assumptions of the model
PARK_SECONDS = 1.0  # at least, beside the soonest cooldown
WAKE_SECONDS = 10.0  # over which the jobs that waited for a route start again

Step = Generator[
    float | None, None, None
]  # a wait in seconds; negative: without its slot; None: until a route may be tried


@dataclass
class Outcome:
    """One job. Times in seconds; `ended` None: it was still waiting at the end. `route`: its answer's. `micros`: paid."""

    accepted: float
    prompt_tokens: int
    answer_tokens: int
    ended: float | None = None
    route: str = ""
    dead: str = ""
    attempts: int = 0
    parked: int = 0
    micros: float = 0.0

    @property
    def seconds(self) -> float:
        return math.inf if self.ended is None else self.ended - self.accepted


@dataclass
class World:
    """One configuration under one incident."""

    routes: Sequence[Route]
    policy: JobPolicy
    windows: Sequence[Window]
    slots: int
    seed: int
    breakers: bool = True
    now: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)  # noqa: S311 - a replay must be the same again
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number, self._busy = 0, 0
        self._queue: deque[Step] = deque()
        self._parked: deque[Step] = deque()
        self._probes = False  # whether one of the parked jobs is about to try the routes
        self._breakers = {route.name: RouteBreaker(RULES, lambda: self.now) for route in self.routes}

    def run(self, arrivals: Sequence[Arrival], begins: float, until: float) -> list[Outcome]:
        """The outcomes of all arrivals, whose first one comes at `begins` seconds of the day; it ends at `until`."""
        for arrival in arrivals:
            outcome = Outcome(begins + arrival.at, arrival.prompt_tokens, arrival.answer_tokens)
            self.outcomes.append(outcome)
            self._at(outcome.accepted, lambda outcome=outcome: self._enter(self._job(outcome)))  # type: ignore[misc]
        while self._due and self._due[0][0] <= until:
            self.now, _, happen = heapq.heappop(self._due)
            happen()
        return self.outcomes

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (when, self._number, happen))

    def _enter(self, job: Step) -> None:
        """Start the next execution of a job when a slot is free."""
        self._queue.append(job)
        while self._queue and self._busy < self.slots:
            self._busy += 1
            self._advance(self._queue.popleft())

    def _advance(self, job: Step) -> None:
        """Let it go on until it waits."""
        try:
            wait = next(job)
        except StopIteration:
            self._leave()
            return
        if wait is None:
            self._leave()
            self._parked.append(job)
            self._probe()
        elif wait >= 0:
            self._at(self.now + wait, lambda: self._advance(job))
        else:
            self._leave()
            self._at(self.now - wait, lambda: self._enter(job))

    def _probe(self) -> None:
        """Let one parked job try the routes when the first cooldown is over; while one does, the others wait."""
        if self._parked and not self._probes:
            self._probes = True
            soonest = min(breaker.reopens_in() for breaker in self._breakers.values())
            self._at(self.now + max(PARK_SECONDS, soonest), self._try_one)

    def _try_one(self) -> None:
        self._probes = False
        if self._parked:
            self._enter(self._parked.popleft())
            self._probe()

    def _wake(self) -> None:
        """A route is used again: all that waited for one starts, spread over WAKE_SECONDS."""
        waiting, self._parked = self._parked, deque()
        for number, job in enumerate(waiting):
            self._at(self.now + WAKE_SECONDS * number / len(waiting), lambda job=job: self._enter(job))  # type: ignore[misc]

    def _leave(self) -> None:
        self._busy -= 1
        if self._queue:
            self._busy += 1
            self._advance(self._queue.popleft())

    def _job(self, outcome: Outcome) -> Step:
        executions = 0
        while True:
            if self.now > outcome.accepted + self.policy.expires_after_seconds:
                outcome.ended, outcome.dead = self.now, "expired"
                return
            tried = yield from self._execution(outcome)
            if outcome.ended is not None:
                return
            if not tried:
                outcome.parked += 1
                yield None
                continue
            executions += 1
            if executions >= self.policy.executions:
                outcome.ended, outcome.dead = self.now, "exhausted"
                return
            backoff = self.policy.backoff_seconds
            yield -max(0.001, self._chance.uniform(0, min(backoff.first * 2**executions, backoff.max)))

    def _execution(self, outcome: Outcome) -> Generator[float | None, None, bool]:
        """Try each route in order. Returns whether any was tried."""
        tried, over = False, self.now + self.policy.deadline_seconds
        for route in self.routes:
            for number in range(1, ATTEMPTS_A_ROUTE + 1):
                permit = self._breakers[route.name].admit() if self.breakers else None
                if (self.breakers and permit is None) or self.now >= over:
                    break
                tried = True
                outcome.attempts += 1
                good, seconds = self._call(route, outcome)
                left = over - self.now
                yield min(seconds, left)
                good = good and seconds <= left
                if permit is not None:
                    self._breakers[route.name].record(permit, good)
                    if good and self._parked and self._breakers[route.name].open_for_all():
                        self._wake()
                if good:
                    outcome.ended, outcome.route = self.now, route.name
                    outcome.micros += _micros(route, outcome)
                    return True
                yield self._chance.uniform(0, min(MAX_SECONDS, FIRST_SECONDS * 2 ** (number - 1)))
        return tried

    def _call(self, route: Route, outcome: Outcome) -> tuple[bool, float]:
        """(whether the provider answers, after how many seconds)."""
        limit = route.entry.timeout_seconds or self.policy.deadline_seconds
        seconds = (BASE_SECONDS + outcome.answer_tokens / TOKENS_A_SECOND) * self._chance.lognormvariate(0, 0.25)
        for window in self.windows:
            begins, ends = window.seconds
            if window.provider == route.entry.provider and begins <= self.now < ends:
                seconds *= window.latency
                if self._chance.random() < window.failures:
                    return False, limit if self._chance.random() < window.timeouts else FAILS_AFTER_SECONDS
        return seconds <= limit, min(seconds, limit)


def _micros(route: Route, outcome: Outcome) -> float:
    price = route.price
    return 0.0 if price is None else outcome.prompt_tokens * price.input + outcome.answer_tokens * price.output
