"""Walks the candidates: tenacity inside one route, failover between routes, one wall clock over all.

Every retry has one owner: tenacity owns the attempts on a route, this file owns failover, the settle script owns the
job's next execution. Each route is visited at most once an execution.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tenacity

from producer.job import BROKEN_OFF, Attempt, Rejection
from worker.breaker import Admission
from worker.breakers import SharedBreaker
from worker.failures import Action, Breaker, Broken, Failure, Reply, classify, redacted
from worker.providers import Providers
from worker.routes import Route

ATTEMPTS_ON_A_ROUTE = 3
BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 0.2, 10.0
SHORTEST_ATTEMPT_SECONDS = 0.05
LONGEST_WAIT_SECONDS = 5.0  # on a route that names its Retry-After; for longer ones another route, or the schedule
FAIR_ATTEMPT_SECONDS = 5.0  # a silence shorter than this, forced by our own deadline, is not held against the route


@dataclass(frozen=True)
class Answer:
    """A route answered. `hops` counts the routes left behind after a failed attempt."""

    route: Route
    completion: dict[str, Any]
    hops: int


@dataclass(frozen=True)
class Unanswered:
    """No route answered. `failures`: the last one of each route tried, in order; empty when none could be tried.

    `opens_in`: seconds until the first candidate may be tried again, None when one may be tried at once.
    """

    failures: tuple[Failure, ...]
    opens_in: float | None


@dataclass
class Walk:
    """One execution's way over its candidates. `deadline` in the loop's time; `ordinal` counts executions from 1.

    `attempts` are all calls made; `attempts_left` is the job's hard cap, which probes do not use up. `burned`: an
    attempt failed that was no probe, on a route that did not name the time to come back.
    """

    job_id: str
    ordinal: int
    body: Mapping[str, Any]
    idempotency_key: str
    deadline: float
    attempts_left: int
    trail: list[Attempt | Rejection] = field(default_factory=list)
    attempts: int = 0
    burned: bool = False

    def seconds_left(self) -> float:
        return self.deadline - asyncio.get_running_loop().time()

    def tell(self, route: Route, failure: Failure | None, started: float, *, probe: bool) -> None:
        """An attempt that ended, into the trail."""
        ms = round((time.monotonic() - started) * 1000)
        self.trail.append(
            Attempt(
                execution=self.ordinal,
                route=route.name,
                tier=route.tier,
                outcome=failure.code if failure else "ok",
                status=failure.status if failure else None,
                at_ms=round(time.time() * 1000) - ms,
                ms=ms,
                ambiguous=failure.ambiguous if failure else False,
                probe=probe,
                detail=(failure.detail or None) if failure else None,
            )
        )

    def reject(self, route: Route, why: str) -> None:
        self.trail.append(Rejection(execution=self.ordinal, route=route.name, tier=route.tier, rejected=why))


class Router:
    def __init__(self, providers: Providers, breakers: Mapping[str, SharedBreaker]) -> None:
        self._providers, self._breakers = providers, breakers

    async def execute(self, candidates: Sequence[Route], walk: Walk) -> Answer | Unanswered:
        """The first answer that can be used, or why there is none. Every attempt and rejection goes into the trail."""
        failures: list[Failure] = []
        too_small: Route | None = None
        for position, route in enumerate(candidates):
            if why := _hindrance(route, walk, too_small):
                walk.reject(route, why)
                continue
            tried = await self._on_route(route, walk, is_last=position == len(candidates) - 1)
            if tried is None:
                walk.reject(route, self._breakers[route.name].closed_off())
                continue
            if isinstance(tried, Reply):
                return Answer(route, tried.body, len(failures))
            failures.append(tried)
            if tried.action in (Action.REJECT, Action.REFUSE):
                break
            if tried.action is Action.LARGER:
                too_small = route
        return Unanswered(tuple(failures), self._opens_in(candidates))

    def _opens_in(self, candidates: Sequence[Route]) -> float | None:
        breakers = [self._breakers[route.name] for route in candidates]
        if not breakers or any(breaker.open_for_all() for breaker in breakers):
            return None
        return min(breaker.reopens_in() for breaker in breakers)

    async def _on_route(self, route: Route, walk: Walk, *, is_last: bool) -> Reply | Failure | None:
        """Up to three attempts, exponential from 0.2 s with full jitter, or as late as the provider says.

        None: the breaker let no attempt through.
        """

        def again(state: tenacity.RetryCallState) -> bool:
            failure = state.outcome.result() if state.outcome else None
            return (
                isinstance(failure, Failure)
                and failure.action is Action.RETRY
                and state.attempt_number <= failure.retries
                and walk.attempts_left > 0
                and walk.seconds_left() > SHORTEST_ATTEMPT_SECONDS
                and (failure.retry_after or 0.0) <= min(LONGEST_WAIT_SECONDS, _share(route, walk, is_last=is_last))
            )

        tried: Reply | Failure | None = None
        async for attempt in tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS_ON_A_ROUTE),
            wait=_wait,
            retry=again,
            retry_error_callback=lambda _: None,
            sleep=asyncio.sleep,
        ):
            if tried is not None and walk.seconds_left() < SHORTEST_ATTEMPT_SECONDS:
                break
            admission = await self._breakers[route.name].admit()
            if admission is None:
                break
            tried = await self._attempt(route, walk, admission, _share(route, walk, is_last=is_last))
            attempt.retry_state.set_result(tried)
        return tried

    async def _attempt(self, route: Route, walk: Walk, admission: Admission, seconds: float) -> Reply | Failure:
        """One HTTP call; the breaker and the trail hear of it also when it is broken off by a cancel."""
        breaker = self._breakers[route.name]
        started = time.monotonic()
        answer: Reply | Broken | None = None
        try:
            answer = await self._providers.complete(route, walk.body, walk.idempotency_key, seconds)
        finally:
            if answer is None:
                breaker.record(admission, None)
                walk.tell(route, _BROKEN_OFF, started, probe=admission.probe)
        failure = classify(answer, time.time())
        walk.attempts += 1
        walk.attempts_left -= not admission.probe
        ms = round((time.monotonic() - started) * 1000)
        if failure is None:
            breaker.record(admission, True, ms=ms, job=walk.job_id)
        else:
            failure = replace(failure, detail=redacted(failure.detail, route.key))
            counts = failure.breaker is Breaker.COUNT and not _cut_short(failure, route, seconds)
            rest = failure.retry_after or failure.rests
            verdict = False if counts else None
            breaker.record(admission, verdict, ms=ms, job=walk.job_id, rest=rest, why=failure.code)
            if not rest and not admission.probe:
                walk.burned = True
        walk.tell(route, failure, started, probe=admission.probe)
        return failure or answer  # type: ignore[return-value]  # no failure means that a Reply came


_BROKEN_OFF = Failure(BROKEN_OFF, Action.RETRY, Breaker.NEUTRAL, ambiguous=True, detail="the worker was stopped")


def _hindrance(route: Route, walk: Walk, too_small: Route | None) -> str | None:
    if too_small is not None and not _may_be_larger(route, too_small):
        return "context window too small"
    if walk.attempts_left <= 0:
        return "no attempts left"
    if walk.seconds_left() < SHORTEST_ATTEMPT_SECONDS:
        return "no time left"
    return None


def _may_be_larger(route: Route, than: Route) -> bool:
    """Unknown windows get the benefit of the doubt: a refusal for length is quick and not billed."""
    window, small = route.entry.context_window, than.entry.context_window
    return window is None or small is None or window > small


def _share(route: Route, walk: Walk, *, is_last: bool) -> float:
    """Seconds that one attempt may take: the route's limit, and never more than half of what is left while another
    route could still answer."""
    left = walk.seconds_left()
    return max(SHORTEST_ATTEMPT_SECONDS, min(route.entry.timeout_seconds, left if is_last else left / 2))


def _cut_short(failure: Failure, route: Route, seconds: float) -> bool:
    return failure.code == "timeout" and seconds < min(FAIR_ATTEMPT_SECONDS, route.entry.timeout_seconds)


_BACKOFF = tenacity.wait_random_exponential(multiplier=BACKOFF_FIRST_SECONDS, max=BACKOFF_MAX_SECONDS)


def _wait(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.result() if state.outcome else None
    named = failure.retry_after if isinstance(failure, Failure) else None
    return max(_BACKOFF(state), named or 0.0)
