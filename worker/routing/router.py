"""Tries the candidates of a plan in their order: calls with retries on one route, failover between routes, one deadline
over all.

Every retry has one owner: `_on_route` owns the calls on a route, `execute` the failover, the settle script the job's next
execution. Each route is visited at most once an execution. What follows from a call is decided in verdict.py, and applied
here once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from producer.trail import BROKEN_OFF, RejectedFor
from worker.breakers.local import Permit
from worker.breakers.shared import SharedBreaker
from worker.control.held_drill import DrillWatcher
from worker.errors.catalog import MALFORMED, Action, Breaker, Failure
from worker.errors.classify import Broke, Broken, Reply, classify
from worker.events import Event, EventKind, Hooks
from worker.providers import ProviderRequest, Providers
from worker.routes.api_keys import Keys
from worker.routes.route import Route
from worker.routing.accounting import Accounting
from worker.routing.answer import Answer, Unanswered, first_token_at, note_of, usage_of
from worker.routing.attempt import RouteAttempt
from worker.routing.backoff import pause_before
from worker.routing.execution_context import SHORTEST_ATTEMPT_SECONDS, JobContext, Spend
from worker.routing.plan import BYPASS
from worker.routing.progress import Progress
from worker.routing.request_builder import RequestBuilder
from worker.routing.verdict import Facts, KeyStep, Verdict, verdict_on

log = logging.getLogger("failover.worker")

LONGEST_WAIT_SECONDS = 5.0  # on a route that names its Retry-After; for longer ones another route, or the schedule

_BROKEN_OFF = Failure(BROKEN_OFF, Action.RETRY, Breaker.NEUTRAL, ambiguous=True, detail="the worker was stopped")


class Router:
    """`routes` gives all routes of the map, as what a provider says of an account concerns each of them."""

    def __init__(
        self,
        providers: Providers,
        breakers: Mapping[str, SharedBreaker],
        routes: Callable[[], Sequence[Route]],
        keys: Keys | None = None,
        accounting: Accounting | None = None,
        hooks: Hooks | None = None,
        drill: DrillWatcher | None = None,
    ) -> None:
        self._providers, self._breakers, self._routes = providers, breakers, routes
        self._keys, self._accounting, self._hooks = keys or Keys(), accounting, hooks or Hooks()
        self._drill = drill
        self._builder = RequestBuilder(self._keys)

    async def execute(self, candidates: Sequence[Route], context: JobContext, spend: Spend) -> Answer | Unanswered:
        """The first usable answer, or why there is none. Every call and every rejection goes into the trail."""
        progress = Progress()
        for position, route in enumerate(candidates):
            hindrance = spend.hindrance(context, route, progress.too_small) or progress.too_expensive(context, route)
            if hindrance:
                spend.reject(context, route, *hindrance)
                continue
            others = [other for other in candidates[position + 1 :] if self._is_open(other, context)]
            attempt = self._builder.attempt_on(route, context, others)
            if progress.failures:
                came_from = next(reversed(progress.failures))
                self._emit(EventKind.FAILED_OVER, context, {"from": came_from, "route": route.name})
            tried = await self._on_route(attempt, context, spend)
            if isinstance(tried, Reply):
                return Answer(route, tried.body, len(progress.failures))
            if tried is None:
                code, why = self._closed_off(attempt, context)
                spend.reject(context, route, code, why)
                progress.closed_off(route, code, why, attempt.refusal, attempt.local)
                continue
            progress.failed(route, tried)
            if tried.action is Action.REJECT or (tried.action is Action.REFUSE and not context.failover_on_refusal):
                break
        return self._unanswered(candidates, context, progress)

    def _unanswered(self, candidates: Sequence[Route], context: JobContext, progress: Progress) -> Unanswered:
        """Why no route answered, and when one may."""
        opens_in = {route.name: self._opens_in(route, context) for route in candidates}
        untried = (self._breakers[route.name] for route in candidates if route.name not in progress.failures)
        return Unanswered(
            failures=tuple(progress.failures.values()),
            opens_in=None if any(self._is_open(route, context) for route in candidates) else _least(opens_in.values()),
            passed_over=_least(opens_in[name] for name in progress.may_open),
            withheld=next((each.withheld for each in untried if each.withheld and not each.withheld.for_good), None),
            others_may=any(self._builder.opens_in(route, context) > 0 for route in candidates),
            closed=progress.closed_in_words,
            withheld_subjects=self._withheld_subjects(candidates),
            held_back=progress.held_back,
            local=progress.local,
        )

    def _withheld_subjects(self, candidates: Sequence[Route]) -> tuple[str, ...]:
        found = (self._breakers[route.name].withheld for route in candidates)
        return tuple(dict.fromkeys(each.subject for each in found if each))

    def _closed_off(self, attempt: RouteAttempt, context: JobContext) -> tuple[RejectedFor, str]:
        """Why no call was made."""
        if attempt.refusal is not None:
            return attempt.refusal.rejected_for, str(attempt.refusal)
        if attempt.local:
            return RejectedFor.LOCAL, f"this worker's machine: {attempt.local}"
        if self._builder.no_key(attempt):
            return RejectedFor.RESTS, f"the keys of tenant {context.owner.tenant} were refused or limited lately"
        return self._breakers[attempt.route.name].closed_off()

    def _is_open(self, route: Route, context: JobContext) -> bool:
        return self._breakers[route.name].open_for_all() and self._builder.opens_in(route, context) <= 0

    def _opens_in(self, route: Route, context: JobContext) -> float:
        return max(self._breakers[route.name].reopens_in(), self._builder.opens_in(route, context))

    async def _on_route(self, attempt: RouteAttempt, context: JobContext, spend: Spend) -> Reply | Failure | None:
        """The calls on one route: retries with full jitter from 0.2 s, or as late as the provider says.

        None: the breaker, the keys or the ledger let no call through.
        """
        tried, number = await self._once(attempt, context, spend), 1
        while isinstance(tried, Failure) and self._may_go_again(tried, attempt, context, spend):
            attempt.retries += tried.action is Action.RETRY
            await asyncio.sleep(pause_before(tried, number))
            if context.seconds_left() < SHORTEST_ATTEMPT_SECONDS:
                break
            another = await self._once(attempt, context, spend)
            if another is None:
                break
            tried, number = another, number + 1
        if attempt.permit is not None:  # corrected, and no time or attempt left to send it
            self._breakers[attempt.route.name].record(attempt.permit, None)
            tried = replace(tried, action=Action.FAILOVER) if isinstance(tried, Failure) else tried
        return tried

    def _may_go_again(self, failure: Failure, attempt: RouteAttempt, context: JobContext, spend: Spend) -> bool:
        """Whether the route is called once more, by what the last failure says and by what is left to spend."""
        if spend.attempts_left <= 0 or spend.over_cost(context.plan, attempt.route):
            return False
        longest_wait = min(LONGEST_WAIT_SECONDS, context.seconds_for(attempt))
        if context.seconds_left() <= SHORTEST_ATTEMPT_SECONDS or (failure.retry_after or 0.0) > longest_wait:
            return False
        match failure.action:
            case Action.RETRY:
                return attempt.may_retry(failure)
            case Action.NEXT_KEY:
                return self._keys.any_left(attempt.keys)
            case Action.DROP:
                return bool(failure.instead)
        return False

    async def _once(self, attempt: RouteAttempt, context: JobContext, spend: Spend) -> Reply | Failure | None:
        """One call, if a key, the breaker and the ledger let it through."""
        planted = self._drill.fault_of(attempt.route, context.owner.feature) if self._drill else None
        if planted is not None:
            return self._planted(planted, attempt, context, spend)
        if self._builder.no_key(attempt):
            return None
        breaker = self._breakers[attempt.route.name]
        permit = attempt.permit or await breaker.admit(regardless=context.plan.order == BYPASS)
        attempt.permit = None
        if permit is None or not await self._may_spend(attempt, context, spend, permit):
            return None
        answer = await self._call(attempt, context, spend, permit)
        if isinstance(answer, Broken) and answer.how is Broke.LOCAL:
            self._not_sent(answer.detail, attempt, permit)
            return None
        failure = self._classified(answer, attempt)
        if failure is not None and context.live is not None:
            context.live.broke()
        verdict = verdict_on(failure, self._facts(failure, attempt, permit))
        return self._apply(verdict, answer, attempt, context, spend, permit)

    def _planted(self, fault: Failure, attempt: RouteAttempt, context: JobContext, spend: Spend) -> Failure:
        """A drill's fault in place of a call: it is in the trail and uses an attempt, and nothing else hears of it."""
        attempt.begin(None, 0.0, probe=False, breaker=self._breakers[attempt.route.name].state)
        spend.attempts += 1
        spend.attempts_left -= 1
        spend.record(context, attempt, fault)
        return fault

    async def _may_spend(self, attempt: RouteAttempt, context: JobContext, spend: Spend, permit: Permit) -> bool:
        """Whether the ledger lets the call go out; if not, the permit is given back, and `attempt.refusal` says why."""
        if self._accounting is None:
            return True
        breaker = self._breakers[attempt.route.name]
        try:
            attempt.refusal = refusal = await self._accounting.reserve(attempt, context, spend)
        except asyncio.CancelledError:
            breaker.record(permit, None)
            raise
        if (
            refusal is None and attempt.reservation is not None and self._builder.no_key(attempt)
        ):  # parked while it waited
            self._accounting.release(attempt.reservation)
        elif refusal is None:
            return True
        cooldown = refusal.seconds if refusal is not None and refusal.cools_route else 0.0
        breaker.record(permit, None, rest=cooldown, why="our own limit")
        return False

    async def _call(self, attempt: RouteAttempt, context: JobContext, spend: Spend, permit: Permit) -> Reply | Broken:
        """One HTTP call; breaker, trail and ledger hear of it also when it is broken off by a cancel."""
        route, breaker = attempt.route, self._breakers[attempt.route.name]
        attempt.begin(
            self._keys.best(attempt.keys), context.seconds_for(attempt), probe=permit.probe, breaker=breaker.state
        )
        if context.live is not None:
            context.live.begin()
        request = ProviderRequest(
            route=route,
            key=attempt.key.secret if attempt.key else "",
            secrets=[each.secret for each in attempt.keys],
            body=attempt.body,
            idempotency_key=context.idempotency_key,
            seconds=attempt.seconds,
            first_token_seconds=context.first_token(route),
            prompt_caching=context.plan.prompt_caching,
            dropped=attempt.unsaid,
            live=context.live.send if context.live is not None else None,
        )
        try:
            return await self._providers.complete(request)
        except BaseException:
            breaker.record(permit, None)
            self._record(attempt, context, spend, _BROKEN_OFF, None)
            raise

    def _not_sent(self, trouble: str, attempt: RouteAttempt, permit: Permit) -> None:
        """Trouble of this machine: no attempt was made, so breaker, health and ledger hear of none."""
        self._breakers[attempt.route.name].record(permit, None)
        if self._accounting is not None and attempt.reservation is not None:
            self._accounting.release(attempt.reservation)
        attempt.local = trouble

    def _classified(self, answer: Reply | Broken, attempt: RouteAttempt) -> Failure | None:
        """What the answer means. Whatever a provider sends, the breaker hears of the call."""
        try:
            failure = classify(answer, time.time())
        except Exception:
            log.exception("an answer could not be read")
            failure = MALFORMED
        return failure and self._builder.without_secrets(failure, attempt)

    def _facts(self, failure: Failure | None, attempt: RouteAttempt, permit: Permit) -> Facts:
        route, key = attempt.route, attempt.key
        if failure is None:
            return Facts(permit.probe, attempt.seconds, route.entry.timeout_seconds, has_key=key is not None)
        return Facts(
            probe=permit.probe,
            seconds=attempt.seconds,
            fair_seconds=route.entry.timeout_seconds,
            has_key=key is not None,
            tenants_key=bool(key and key.tenant),
            other_key=key is not None and self._keys.any_left([each for each in attempt.keys if each != key]),
            key_is_current=key is None or self._builder.is_current(route, key, self._routes()),
            correction=attempt.correction(failure.parameter, failure.instead)
            if failure.action is Action.DROP
            else None,
        )

    def _apply(
        self,
        verdict: Verdict,
        answer: Reply | Broken,
        attempt: RouteAttempt,
        context: JobContext,
        spend: Spend,
        permit: Permit,
    ) -> Reply | Failure:
        """What the verdict says, done once: key, request, breaker, account, trail and ledger."""
        route, breaker, failure = attempt.route, self._breakers[attempt.route.name], verdict.failure
        spend.attempts += 1
        spend.attempts_left -= not permit.probe
        spend.burned = spend.burned or verdict.burned
        self._apply_to_key(verdict, attempt)
        if verdict.correction is not None and failure is not None:
            self._builder.remember(attempt, failure, verdict.correction)
        if verdict.again_at_once:
            attempt.permit = permit  # for the corrected request, which says what the route is worth
        else:
            ms, why = round((time.monotonic() - attempt.started) * 1000), failure.code if failure else ""
            breaker.record(permit, verdict.breaker, ms=ms, job=context.job_id, rest=verdict.cooldown, why=why)
            if verdict.account:
                self._cool_account(route, verdict.cooldown, why)
        self._record(attempt, context, spend, failure, answer)
        if failure is not None:
            return failure
        tenants_key = attempt.key is not None and bool(attempt.key.tenant)
        if self._accounting is not None and not tenants_key and (cooldown := self._accounting.heed(route, answer)):
            breaker.rest(cooldown, "rate limit")
        return answer  # type: ignore[return-value]  # no failure means that a Reply came

    def _apply_to_key(self, verdict: Verdict, attempt: RouteAttempt) -> None:
        if attempt.key is None:
            return
        match verdict.key:
            case KeyStep.ACCEPTED:
                self._keys.accepted(attempt.key)
            case KeyStep.PARK:
                self._keys.park(attempt.key, verdict.key_seconds)
            case KeyStep.HOLD:
                self._keys.hold(attempt.key, verdict.key_seconds)

    def _cool_account(self, route: Route, seconds: float, why: str) -> None:
        for other in self._routes():
            if other.account == route.account and other.name != route.name:
                self._breakers[other.name].rest(seconds, why)

    def _record(
        self,
        attempt: RouteAttempt,
        context: JobContext,
        spend: Spend,
        failure: Failure | None,
        answer: Reply | Broken | None,
    ) -> None:
        """A call that ended, into the trail and the ledger."""
        usage = usage_of(answer) if answer is not None else None
        note, first = ("", None) if failure else (note_of(answer), first_token_at(answer))
        entry = spend.record(context, attempt, failure, usage=usage, note=note, first_token_at=first)
        if self._accounting is not None and attempt.reservation is not None:
            self._accounting.settle(attempt.reservation, entry, failure)
        if self._hooks.wants(EventKind.ATTEMPTED):
            facts = {"route": entry.route, "outcome": entry.outcome, "ms": entry.ms, "cost_usd": entry.cost_usd}
            tags: dict[str, object] = {
                "user": context.owner.user,
                "feature": context.owner.feature,
                "model": attempt.route.model,
            }
            tags |= {"provider": attempt.route.entry.provider, "latency_ms": entry.ms, "cache_hit": False}
            tags |= {"input_tokens": entry.prompt_tokens, "output_tokens": entry.completion_tokens}
            self._emit(EventKind.ATTEMPTED, context, facts | tags)

    def _emit(self, kind: EventKind, context: JobContext, facts: Mapping[str, object]) -> None:
        if self._hooks.wants(kind):
            self._hooks.emit(Event(kind, context.job_id, {"tenant": context.owner.tenant, **facts}))


def _least(seconds: Iterable[float]) -> float | None:
    return min(seconds, default=None)
