"""Walks the candidates: tenacity inside one route, failover between routes, one wall clock over all.

Every retry has one owner: tenacity owns the attempts on a route, this file owns failover, the settle script owns the
job's next execution. Each route is visited at most once an execution.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import tenacity

from producer.trail import BROKEN_OFF, RejectedFor
from worker.breakers.local import Admission
from worker.breakers.shared import SharedBreaker
from worker.errors.catalog import MALFORMED, Action, Breaker, Failure, Scope
from worker.errors.classify import Broken, Reply, classify
from worker.providers import Ask, Providers
from worker.routes.api_keys import Keys
from worker.routes.route import Route
from worker.routing.accounting import Bookkeeper
from worker.routing.answer import Answer, HeldBack, Unanswered, note_of, usage_of
from worker.routing.execution_context import SHORTEST_ATTEMPT_SECONDS, Call, Visit, Walk
from worker.routing.plan import BYPASS
from worker.routing.request_builder import Visits

log = logging.getLogger("failover.worker")

BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 0.2, 10.0
LONGEST_WAIT_SECONDS = 5.0  # on a route that names its Retry-After; for longer ones another route, or the schedule
REST_MARGIN_SECONDS = 0.1  # the route's rest began when Redis heard of it, a moment later than here
FAIR_ATTEMPT_SECONDS = 5.0  # a silence shorter than this, forced by our own deadline, is not held against the route


class Router:
    """`routes`: all of the map, as what a provider says of an account concerns each of them."""

    def __init__(
        self,
        providers: Providers,
        breakers: Mapping[str, SharedBreaker],
        routes: Sequence[Route],
        keys: Keys | None = None,
        books: Bookkeeper | None = None,
    ) -> None:
        self.routes, self._books = routes, books
        self._providers, self._breakers, self._keys = providers, breakers, keys or Keys()
        self._visits = Visits(self._keys)

    async def execute(self, candidates: Sequence[Route], walk: Walk) -> Answer | Unanswered:
        """The first answer that can be used, or why there is none. Every attempt and rejection goes into the trail."""
        failures: dict[str, Failure] = {}
        closed: dict[str, tuple[RejectedFor, str]] = {}
        too_small: Route | None = None
        held_back: HeldBack | None = None
        dearest: float = math.inf  # calls that may cost as much are not asked for any more
        for position, route in enumerate(candidates):
            if hindrance := walk.hindrance(route, too_small):
                walk.reject(route, *hindrance)
                continue
            if held_back is not None and walk.plan.estimates.get(route.name, 0) >= dearest:
                walk.reject(route, RejectedFor.OVER_BUDGET, held_back.why)
                continue
            another_waits = any(self._is_open(other, walk) for other in candidates[position + 1 :])
            visit = self._visits.of(route, walk, another_waits=another_waits)
            tried = await self._on_route(visit, walk)
            if isinstance(tried, Reply):
                return Answer(route, tried.body, len(failures))
            if tried is None:
                closed[route.name] = self._closed_off(visit, walk)
                walk.reject(route, *closed[route.name])
                if visit.refusal is not None and visit.refusal.why in _HOLDS_BACK:
                    held_back = HeldBack(str(visit.refusal), visit.refusal.seconds, busy=visit.refusal.why == "busy")
                    if visit.refusal.asked and not visit.refusal.of.startswith("provider:"):
                        dearest = visit.refusal.asked
                continue
            failures[route.name] = tried
            if tried.action is Action.REJECT or (tried.action is Action.REFUSE and not walk.failover_on_refusal):
                break
            if tried.action is Action.LARGER:
                too_small = route
        return self._unanswered(candidates, walk, failures, closed, held_back)

    def _unanswered(
        self,
        candidates: Sequence[Route],
        walk: Walk,
        failures: Mapping[str, Failure],
        closed: Mapping[str, tuple[RejectedFor, str]],
        held_back: HeldBack | None,
    ) -> Unanswered:
        """Why no route answered, and when one may. What lacks money opens by no time of a route's."""
        lets_none = {name: why for name, (code, why) in closed.items() if code not in _MONEY}
        waits = {route.name: self._opens_in(route, walk) for route in candidates}
        passed = (waits[name] for name in lets_none if closed[name][0] is not RejectedFor.DISABLED)
        untried = (self._breakers[route.name] for route in candidates if route.name not in failures)
        any_open = any(self._is_open(route, walk) for route in candidates)
        return Unanswered(
            tuple(failures.values()),
            opens_in=None if any_open else min(waits.values(), default=None),
            passed_over=min(passed, default=None),
            withheld=next((each.withheld for each in untried if each.withheld and not each.disabled), ""),
            others_may=any(self._visits.opens_in(route, walk) > 0 for route in candidates),
            closed="; ".join(f"{name}: {why}" for name, why in lets_none.items()),
            held_back=held_back,
        )

    def _closed_off(self, visit: Visit, walk: Walk) -> tuple[RejectedFor, str]:
        """Why no attempt was made."""
        if visit.refusal is not None:
            return _REFUSED[visit.refusal.why], str(visit.refusal)
        if self._visits.no_key(visit):
            return RejectedFor.RESTS, f"the keys of tenant {walk.tenant} were refused or limited lately"
        return self._breakers[visit.route.name].closed_off()

    def _is_open(self, route: Route, walk: Walk) -> bool:
        return self._breakers[route.name].open_for_all() and self._visits.opens_in(route, walk) <= 0

    def _opens_in(self, route: Route, walk: Walk) -> float:
        return max(self._breakers[route.name].reopens_in(), self._visits.opens_in(route, walk))

    async def _on_route(self, visit: Visit, walk: Walk) -> Reply | Failure | None:
        """The route's attempts: retries exponential from 0.2 s with full jitter, or as late as the provider says.

        None: the breaker let no attempt through.
        """

        async def attempt_once() -> Reply | Failure | None:
            if self._visits.no_key(visit):
                return None
            breaker = self._breakers[visit.route.name]
            admission = visit.admission or await breaker.admit(regardless=walk.plan.order == BYPASS)
            visit.admission = None
            if admission is None:
                return None
            return (
                await self._attempt(visit, walk, admission) if await self._may_spend(visit, walk, admission) else None
            )

        tried = await attempt_once()
        if not isinstance(tried, Failure):
            return tried  # most jobs: tenacity is for what failed
        async for attempt in tenacity.AsyncRetrying(
            wait=_wait,
            retry=lambda state: self._again(state, visit, walk),
            retry_error_callback=lambda _: None,
            sleep=asyncio.sleep,
        ):
            if attempt.retry_state.attempt_number > 1:
                another = await attempt_once() if walk.seconds_left() >= SHORTEST_ATTEMPT_SECONDS else None
                if another is None:
                    break
                tried = another
            attempt.retry_state.set_result(tried)
        if visit.admission is not None:  # corrected, and no time or attempt left to send it
            self._breakers[visit.route.name].record(visit.admission, None)
            tried = replace(tried, action=Action.FAILOVER) if isinstance(tried, Failure) else tried
        return tried

    async def _may_spend(self, visit: Visit, walk: Walk, admission: Admission) -> bool:
        """Whether the books let the call go out; if not, the admission is settled, and `visit.refusal` says why."""
        if self._books is None:
            return True
        breaker = self._breakers[visit.route.name]
        try:
            visit.refusal = refusal = await self._books.reserve(visit, walk)
        except asyncio.CancelledError:
            breaker.record(admission, None)
            raise
        if refusal is None and visit.reservation is not None and self._visits.no_key(visit):  # parked while it waited
            self._books.release(visit.reservation)
        elif refusal is None:
            return True
        rest = refusal.seconds if refusal is not None and refusal.why == "limit" else 0.0
        breaker.record(admission, None, rest=rest, why="our own limit")
        return False

    def _again(self, state: tenacity.RetryCallState, visit: Visit, walk: Walk) -> bool:
        """Whether the route is asked once more, by what the last failure says and by what is left to spend."""
        failure = state.outcome.result() if state.outcome else None
        if not isinstance(failure, Failure) or walk.attempts_left <= 0 or walk.over_cost(visit.route):
            return False
        longest_wait = min(LONGEST_WAIT_SECONDS, walk.share(visit))
        if walk.seconds_left() <= SHORTEST_ATTEMPT_SECONDS or (failure.retry_after or 0.0) > longest_wait:
            return False
        match failure.action:
            case Action.RETRY:
                return visit.retry(failure)
            case Action.NEXT_KEY:
                return self._keys.any_left(visit.keys)
            case Action.DROP:
                return bool(failure.instead)
        return False

    def _tell(self, call: Call, walk: Walk, failure: Failure | None, answer: Reply | Broken | None) -> None:
        """An attempt that ended, into the trail and the ledger."""
        usage = usage_of(answer) if answer is not None else None
        attempt = walk.tell(call, failure, usage=usage, note="" if failure else note_of(answer))
        if self._books is not None and call.visit.reservation is not None:
            self._books.settle(call.visit.reservation, attempt, failure)

    async def _attempt(self, visit: Visit, walk: Walk, admission: Admission) -> Reply | Failure:
        """One HTTP call; breaker, trail and ledger hear of it also when it is broken off by a cancel."""
        route, breaker = visit.route, self._breakers[visit.route.name]
        key, seconds = self._keys.best(visit.keys), walk.share(visit)
        call = Call(visit, key, admission.probe, breaker.state)
        ask = Ask(
            route=route,
            key=key.secret if key else "",
            secrets=[each.secret for each in visit.keys],
            body=visit.body,
            idempotency_key=walk.idempotency_key,
            seconds=seconds,
            first_token_seconds=walk.first_token(route),
            prompt_caching=walk.plan.prompt_caching,
            dropped=call.dropped,
        )
        answer: Reply | Broken | None = None
        try:
            answer = await self._providers.complete(ask)
        finally:
            if answer is None:
                breaker.record(admission, None)
                self._tell(call, walk, _BROKEN_OFF, None)
        failure = self._classified(answer)
        walk.attempts += 1
        walk.attempts_left -= not admission.probe
        ms = round((time.monotonic() - call.started) * 1000)
        if failure is None:
            breaker.record(admission, True, ms=ms, job=walk.job_id)
            if key:
                self._keys.accepted(key)
            self._tell(call, walk, None, answer)
            if self._books is not None and not (key and key.tenant) and (rest := self._books.heed(route, answer)):
                breaker.rest(rest, "rate limit")
            return answer  # type: ignore[return-value]  # no failure means that a Reply came
        failure = self._visits.corrected(failure, visit, key)
        if failure.instead or (failure.action is Action.NEXT_KEY and self._keys.any_left(visit.keys)):
            visit.admission = admission  # for the corrected request, which says what the route is worth
            self._tell(call, walk, failure, answer)
            return failure
        rest = failure.retry_after or failure.rests
        walk.burned = walk.burned or not (rest or admission.probe)
        if rest and key and key.tenant:  # what a tenant's account is told is no word on the route
            if failure.action is not Action.NEXT_KEY:
                self._keys.hold(key, rest)
            rest = 0.0
        elif failure.action is Action.NEXT_KEY and key and not self._visits.is_current(route, key, self.routes):
            rest = 0.0  # of a job that began before the key was replaced
        counts = failure.breaker is Breaker.COUNT and not _cut_short(failure, route, seconds)
        breaker.record(admission, False if counts else None, ms=ms, job=walk.job_id, rest=rest, why=failure.code)
        if rest and failure.scope is Scope.ACCOUNT:
            self._rest_account(route, rest, failure.code)
        self._tell(call, walk, failure, answer)
        return failure

    def _classified(self, answer: Reply | Broken) -> Failure | None:
        """Whatever a provider sends, the breaker hears of the attempt."""
        try:
            return classify(answer, time.time())
        except Exception:
            log.exception("an answer could not be read")
            return MALFORMED

    def _rest_account(self, route: Route, seconds: float, why: str) -> None:
        for other in self.routes:
            if other.account == route.account and other.name != route.name:
                self._breakers[other.name].rest(seconds, why)


_REFUSED = {
    "budget": RejectedFor.OVER_BUDGET,
    "busy": RejectedFor.OVER_BUDGET,
    "away": RejectedFor.NO_LEDGER,
    "limit": RejectedFor.LIMITED,
    "tokens": RejectedFor.LIMITED,
    "broken": RejectedFor.NO_LEDGER,
}


_HOLDS_BACK = ("budget", "busy", "tokens", "away", "broken")  # the call, and not the route
_MONEY = (RejectedFor.OVER_BUDGET, RejectedFor.NO_LEDGER)
_BROKEN_OFF = Failure(BROKEN_OFF, Action.RETRY, Breaker.NEUTRAL, ambiguous=True, detail="the worker was stopped")


def _cut_short(failure: Failure, route: Route, seconds: float) -> bool:
    return failure.code == "timeout" and seconds < min(FAIR_ATTEMPT_SECONDS, route.entry.timeout_seconds)


_BACKOFF = tenacity.wait_random_exponential(multiplier=BACKOFF_FIRST_SECONDS, max=BACKOFF_MAX_SECONDS)


def _wait(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.result() if state.outcome else None
    if not isinstance(failure, Failure) or failure.action is not Action.RETRY:
        return 0.0  # what was corrected is sent at once
    named = failure.retry_after + REST_MARGIN_SECONDS if failure.retry_after is not None else 0.0
    return max(_BACKOFF(state), named)
