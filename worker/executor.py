"""One execution of one job, as numbered steps: claim -> plan -> attempts -> outcome."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from producer.errors import InvalidJob
from producer.job import ChatBody, DeadReason, ForeignJob, JobResult, JobStatus, LLMJob, NewerSchema, decode_job
from producer.policy import JobPolicy
from producer.telemetry.context import TRACEPARENT
from producer.trail import Attempt, RejectedFor, TrailEntry
from producer.waiting import WaitReason
from worker.configuration import Configuration, Current
from worker.errors.catalog import Action
from worker.money.answer_cache import Cache
from worker.money.budget_state import BudgetState
from worker.money.caps import Owner
from worker.providers.local_trouble import local_trouble
from worker.queue.claim import Claim
from worker.queue.outcomes import Dead, Done, Executed, Outcome, Park, Released, Retry, without_attempt
from worker.queue.trail import charged, cost_micros, ended, spent_micros, trail_of
from worker.queue.waiting import Waiting
from worker.routes.prices import billed_micros, dollars
from worker.routing.answer import Answer, Unanswered, truncated
from worker.routing.cost_degradation import SHORTER, ReducedJob, fitted_to_cap, reduced_for_budget
from worker.routing.degrade import smaller_first
from worker.routing.disposition import outcome_of, wait_for_this_machine, without_candidate, without_cold_queue
from worker.routing.execution_context import JobContext, Spend, rejection
from worker.routing.live_text import LiveText
from worker.routing.plan import CostPolicy, Plan
from worker.routing.planner import Planner
from worker.routing.router import Router

log = logging.getLogger("failover.worker")

NEWER_SCHEMA_WAIT_SECONDS = 60.0


class Executor:
    """Executes claims with the current configuration; an execution keeps the one that it began with. `jitter` returns
    numbers in 0..1. `p95_ms`: recent p95 latencies by route name, in milliseconds. `live_text`: writes the answer of a job
    with `live` while it comes."""

    def __init__(
        self,
        current: Current,
        router: Router,
        jitter: Callable[[], float],
        p95_ms: Mapping[str, int],
        budget_state: Callable[[], BudgetState],
        cache: Cache,
        live_text: Callable[[Claim], LiveText],
    ) -> None:
        self._current, self._router, self._jitter, self._p95_ms = current, router, jitter, p95_ms
        self._budget_state, self._cache, self._live_text = budget_state, cache, live_text
        self._planned_by: tuple[Configuration, Planner] | None = None

    def _planner(self, configuration: Configuration) -> Planner:
        """The planner of a configuration, created once per configuration."""
        if self._planned_by is None or self._planned_by[0] is not configuration:
            planner = Planner(configuration.routes, configuration.routing, self._p95_ms)
            self._planned_by = (configuration, planner)
        return self._planned_by[1]

    async def run(self, claim: Claim) -> Executed:
        """Execute a claim. Every claim gets an outcome: Released if it is cancelled (the drain), Park if this machine is in
        trouble, Retry (or Dead after the last execution) if our own code fails."""
        trail = trail_of(claim)
        before = ended(trail)
        try:
            return await self._run(claim, trail)
        except asyncio.CancelledError:
            return Executed(Released(trail), claim.attempts + ended(trail) - before, claim.run_ms)
        except Exception as error:
            attempts = claim.attempts + ended(trail) - before
            if isinstance(error, OSError) and (trouble := local_trouble(error)) is not None:
                log.warning(
                    "an execution met trouble of this machine", extra={"job": claim.job_id, "trouble": trouble.words}
                )
                return Executed(wait_for_this_machine(trouble.words, trail, self._jitter), attempts, claim.run_ms)
            log.exception("an execution failed in our own code", extra={"job": claim.job_id})
            policy = self._current.configuration.policies.of_known("default")
            detail = f"failover-worker itself failed: {type(error).__name__}"
            outcome: Outcome = Retry(policy.backoff_seconds.max, detail, trail)
            if claim.executions + 1 >= policy.executions:
                outcome = Dead(DeadReason.EXHAUSTED, detail, trail, policy.keep_dead_seconds)
            return Executed(outcome, attempts, claim.run_ms)

    async def _run(self, claim: Claim, trail: list[TrailEntry]) -> Executed:
        now = self._current.configuration

        # 1. has the job expired?
        left_ms = claim.expires_ms - claim.claimed_ms
        if left_ms <= 0:
            keep = now.policies.of_known("default").keep_dead_seconds
            return without_attempt(claim, Dead(DeadReason.EXPIRED, "its answer would come too late", trail, keep))

        # 2. read the job
        job = _read(claim, now)
        if not isinstance(job, LLMJob):
            return without_attempt(claim, job)
        policy = now.policies.of_known(job.job_type)
        executed = await self._execute(claim, job, policy, trail, now)
        promised_ms = int(policy.max_time_to_answer_seconds * 1000)
        return replace(
            executed,
            tenant=job.tenant_id,
            feature=job.feature,
            promised_ms=promised_ms,
            user=job.user_id,
            job_type=job.job_type,
            traceparent=job.metadata.get(TRACEPARENT, ""),
        )

    async def _execute(
        self, claim: Claim, job: LLMJob, policy: JobPolicy, trail: list[TrailEntry], now: Configuration
    ) -> Executed:
        # 3. is the answer in the cache?
        if (kept := await self._cache.find(job)) is not None:
            result = _kept(claim, kept, trail)
            return Executed(Done(result, policy.keep_results_seconds), claim.attempts, claim.run_ms)

        # 4. plan: which routes, in which order; what to degrade when the job is late or costs too much
        spent, owner = spent_micros(trail), Owner.of(job, claim.job_id, claim.queue, claim.lease)
        planned, sent = self._plan(claim, job, policy, owner, spent, now)
        if sent.over:
            dead = Dead(DeadReason.OVER_BUDGET, sent.over, trail, policy.keep_dead_seconds)
            return without_attempt(claim, dead)
        trail[:] = [*(entry for entry in trail if isinstance(entry, Attempt)), planned.told(claim.ordinal, spent)]
        trail += [rejection(claim.ordinal, each.route, each.code, each.reason) for each in planned.rejected]
        if not planned.candidates:
            none = without_candidate(policy, planned, trail, self._jitter)
            return without_attempt(claim, none if now.routes.cold_queue else without_cold_queue(none, policy))

        # 5. attempts
        started = time.monotonic()
        context = _context(claim, job, policy, planned, sent, owner)
        if job.live:
            context = replace(context, live=self._live_text(claim))
        spend = Spend(policy.attempts - charged(trail), spent, trail, known=len(trail))
        answer = await self._router.execute(planned.candidates, context, spend)
        while _too_large(answer) and "shorter_context" in policy.degrade and sent.shorten():
            context = replace(context, body=sent.body)
            answer = await self._router.execute(planned.candidates, context, spend)

        # 6. outcome
        run_ms = claim.run_ms + round((time.monotonic() - started) * 1000)
        attempts = claim.attempts + spend.attempts
        if isinstance(answer, Answer):
            lacks = [f"without {name}" for name in sorted(planned.lacks.get(answer.route.name, ()))]
            degraded = ", ".join([*sent.given_up, *lacks]) or None
            result = _result(claim, answer, planned, trail, attempts=attempts, run_ms=run_ms, degraded=degraded)
            self._cache.keep(job, result)
            saved = answer.route.name != planned.candidates[0].name
            return Executed(Done(result, policy.keep_results_seconds, saved, bool(planned.why)), attempts, run_ms)
        outcome = outcome_of(claim, policy, answer, planned, spend, self._jitter)
        return Executed(outcome if now.routes.cold_queue else without_cold_queue(outcome, policy), attempts, run_ms)

    def _plan(
        self, claim: Claim, job: LLMJob, policy: JobPolicy, owner: Owner, spent: int, now: Configuration
    ) -> tuple[Plan, ReducedJob]:
        """The plan, and the body to send, degraded where the job is late, too long or too expensive."""

        def replan(body: ChatBody, restraint: CostPolicy) -> Plan:
            return planner.plan(claim.job_id, job, body, policy.requires, spent, restraint)

        planner = self._planner(now)
        sent = reduced_for_budget(job, owner, self._budget_state(), now.routes.routes)
        late = claim.claimed_ms - claim.accepted_ms > policy.max_time_to_answer_seconds * 1000
        may_shorten = "shorter_context" in policy.degrade
        if late and may_shorten and SHORTER not in sent.given_up:
            sent.shorten()
        planned = replan(sent.body, sent.restraint)
        while may_shorten and _too_long(planned) and sent.shorten():
            planned = replan(sent.body, sent.restraint)
        planned = fitted_to_cap(sent, planned, replan)
        if late and "smaller_model" in policy.degrade and planned.order == "listed":
            whole = [route for route in planned.candidates if route.name not in planned.lacks]
            ordered = (*smaller_first(whole), *planned.candidates[len(whole) :])
            if ordered != planned.candidates:
                planned, sent.given_up["smaller_model"] = replace(planned, candidates=ordered), None
        return planned, sent


def _read(claim: Claim, now: Configuration) -> LLMJob | Outcome:
    """The claimed job, or the outcome of a job that cannot be read."""
    keep = now.policies.of_known("default").keep_dead_seconds
    try:
        return decode_job(claim.data)
    except ForeignJob as foreign:
        detail = f"{foreign.function} is not an LLM job; it was not run"
        return Dead(DeadReason.DISALLOWED, detail, (), keep)
    except InvalidJob as error:
        return Dead(DeadReason.MALFORMED, str(error), (), keep)
    except NewerSchema as newer:
        waiting = Waiting(WaitReason.NEWER_WORKER, detail=str(newer))
        return Park(NEWER_SCHEMA_WAIT_SECONDS, waiting, trail_of(claim))


def _on_baseline(
    plan: Plan, answer: Answer, trail: Sequence[TrailEntry], usage: Mapping[str, Any] | None
) -> int | None:
    """Micro-dollars that the answer's tokens would have cost on the baseline route; None if that is not known."""
    if plan.baseline is None or not usage:
        return None
    if plan.baseline is answer.route:
        return cost_micros(trail[-1:])  # of the call that answered
    price = plan.baseline.price
    return billed_micros(price, usage) if price else None


def _result(
    claim: Claim,
    answer: Answer,
    plan: Plan,
    trail: list[TrailEntry],
    *,
    attempts: int,
    run_ms: int,
    degraded: str | None,
) -> JobResult:
    usage = answer.completion.get("usage")
    usage = usage if isinstance(usage, dict) else None
    cost, instead = cost_micros(trail), _on_baseline(plan, answer, trail, usage)
    return JobResult(
        job_id=claim.job_id,
        status=JobStatus.DONE,
        completion=answer.completion,
        route=answer.route.name,
        provider=answer.route.entry.provider,
        model=answer.route.model,
        tier=answer.route.tier,
        attempts=attempts,
        failover_hops=answer.hops,
        usage=usage,
        cost_usd=None if cost is None else dollars(cost),
        baseline_cost_usd=None if instead is None else dollars(instead),
        cost_delta_usd=None if cost is None or instead is None else dollars(cost - instead),
        queue_latency_ms=max(0, claim.claimed_ms - claim.accepted_ms - claim.run_ms),
        run_ms=run_ms,
        degraded=degraded,
        truncated=truncated(answer.completion),
        resolved_by="model",
        trail=trail,
    )


def _context(claim: Claim, job: LLMJob, policy: JobPolicy, planned: Plan, sent: ReducedJob, owner: Owner) -> JobContext:
    """What stays the same during the execution. The deadline is the policy's, but not later than the job's expiry."""
    seconds = min(policy.deadline_seconds, (claim.expires_ms - claim.claimed_ms) / 1000)
    return JobContext(
        job_id=claim.job_id,
        ordinal=claim.ordinal,
        body=sent.body,
        idempotency_key=job.provider_key(claim.job_id),
        deadline=time.monotonic() + seconds,
        plan=planned,
        owner=owner,
        first_token_seconds=policy.first_token_seconds,
        failover_on_refusal=policy.failover_on_refusal,
        seconds=seconds,
    )


def _kept(claim: Claim, kept: Mapping[str, Any], trail: Sequence[TrailEntry]) -> JobResult:
    """The result of a job whose answer is in the cache. Its cost is that of its own earlier attempts, usually nothing."""
    return JobResult(
        **kept,
        job_id=claim.job_id,
        status=JobStatus.DONE,
        attempts=claim.attempts,
        cost_usd=dollars(cost_micros(trail) or 0),
        queue_latency_ms=max(0, claim.claimed_ms - claim.accepted_ms - claim.run_ms),
        run_ms=claim.run_ms,
        cache_hit=True,
        resolved_by="model",
        trail=list(trail),
    )


def _too_long(planned: Plan) -> bool:
    """Whether the plan has no candidate, and a shorter context would allow one."""
    codes = (each.code for each in planned.rejected)
    return not planned.candidates and any(code is RejectedFor.CONTEXT_WINDOW for code in codes)


def _too_large(answer: Answer | Unanswered) -> bool:
    """Whether every route that was tried refused the context as too long."""
    failures = answer.failures if isinstance(answer, Unanswered) and answer.passed_over is None else ()
    return bool(failures) and all(failure.action is Action.LARGER for failure in failures)
