"""One execution of one job, straight down the page: what was claimed -> plan -> attempts -> outcome."""

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
from producer.trail import Attempt, RejectedFor, TrailEntry
from worker.configuration import Configuration
from worker.errors.catalog import Action
from worker.money.answer_cache import Cache
from worker.money.budget_state import Allowances
from worker.money.caps import Owner
from worker.queue.claim import Claim
from worker.queue.outcomes import (
    Dead,
    Done,
    Executed,
    Outcome,
    Park,
    Released,
    Retry,
    without_attempt,
)
from worker.queue.trail import charged, cost_micros, ended, spent_micros, trail_of
from worker.routes.prices import billed_micros, dollars
from worker.routing.answer import Answer, Unanswered, truncated
from worker.routing.cost_degradation import SHORTER, Frugal, affordable, frugal
from worker.routing.degrade import smaller_first
from worker.routing.disposition import outcome_of, without_candidate, without_cold
from worker.routing.execution_context import Walk, rejection
from worker.routing.plan import Plan, Restraint
from worker.routing.planner import Planner
from worker.routing.router import Router

log = logging.getLogger("failover.worker")

NEWER_SCHEMA_WAIT_SECONDS = 60.0


class Executor:
    """Executes claims by the configuration that was adopted last. `jitter` gives numbers in 0..1; `p95_ms`: how fast routes
    are lately, by name."""

    def __init__(
        self,
        configuration: Configuration,
        router: Router,
        jitter: Callable[[], float],
        p95_ms: Mapping[str, int],
        allowances: Allowances,
        cache: Cache,
    ) -> None:
        self._router, self._jitter, self._p95_ms, self._allowances = router, jitter, p95_ms, allowances
        self._cache = cache
        self.adopt(configuration)

    def adopt(self, configuration: Configuration) -> None:
        """Executions that begin from now on go by it."""
        self._now = configuration
        self._planner = Planner(configuration.routes, configuration.routing, self._p95_ms)

    async def run(self, claim: Claim) -> Executed:
        """Every claim ends in an outcome: cancelled (the drain), it is Released; a fault of ours is a Retry."""
        trail = trail_of(claim)
        before = ended(trail)
        try:
            return await self._run(claim, trail)
        except asyncio.CancelledError:
            return Executed(Released(trail), claim.attempts + ended(trail) - before, claim.run_ms)
        except Exception as error:
            log.exception("an execution failed in our own code", extra={"job": claim.job_id})
            policy = self._now.policies.of_known("default")
            said = f"failover-worker itself failed: {type(error).__name__}"
            outcome: Outcome = Retry(policy.backoff_seconds.max, said, trail)
            if claim.executions + 1 >= policy.executions:
                outcome = Dead(DeadReason.EXHAUSTED, said, trail, policy.keep_dead_seconds)
            return Executed(outcome, claim.attempts + ended(trail) - before, claim.run_ms)

    async def _run(self, claim: Claim, trail: list[TrailEntry]) -> Executed:
        now = self._now

        # 1. is the answer still worth anything?
        left_ms = claim.expires_ms - claim.claimed_ms
        if left_ms <= 0:
            keep = now.policies.of_known("default").keep_dead_seconds
            return without_attempt(claim, Dead(DeadReason.EXPIRED, "its answer would come too late", trail, keep))

        # 2. read the job
        job = self._read(claim)
        if not isinstance(job, LLMJob):
            return without_attempt(claim, job)
        policy = now.policies.of_known(job.job_type)

        # 3. has it been answered before?
        if (kept := await self._cache.find(job)) is not None:
            result = _kept(claim, kept, trail)
            return Executed(Done(result, policy.keep_results_seconds), claim.attempts, claim.run_ms)

        # 4. plan: which routes, in which order; what to give up when it is late, or costs too much
        spent, owner = spent_micros(trail), Owner.of(job, claim.job_id, claim.queue, claim.lease)
        planned, sent = self._plan(claim, job, policy, owner, spent)
        if sent.over:
            dead = Dead(DeadReason.OVER_BUDGET, sent.over, trail, policy.keep_dead_seconds)
            return without_attempt(claim, dead)
        trail[:] = [*(entry for entry in trail if isinstance(entry, Attempt)), planned.told(claim.ordinal, spent)]
        trail += [rejection(claim.ordinal, each.route, each.code, each.reason) for each in planned.rejected]
        if not planned.candidates:
            none = without_candidate(policy, planned, trail, self._jitter)
            return without_attempt(claim, none if now.routes.cold_queue else without_cold(none, policy))

        # 5. attempts
        started = time.monotonic()
        walk = _walk(claim, job, policy, planned, sent, owner, trail, spent)
        answer = await self._router.execute(planned.candidates, walk)
        while _too_large(answer) and "shorter_context" in policy.degrade and sent.shorten():
            walk.body = sent.body
            answer = await self._router.execute(planned.candidates, walk)

        # 6. outcome
        run_ms = claim.run_ms + round((time.monotonic() - started) * 1000)
        attempts = claim.attempts + walk.attempts
        if isinstance(answer, Answer):
            lacks = [f"without {name}" for name in sorted(planned.lacks.get(answer.route.name, ()))]
            degraded = ", ".join([*sent.given_up, *lacks]) or None
            result = _result(claim, answer, walk, attempts=attempts, run_ms=run_ms, degraded=degraded)
            self._cache.keep(job, result)
            saved = answer.route.name != planned.candidates[0].name
            return Executed(Done(result, policy.keep_results_seconds, saved, bool(planned.why)), attempts, run_ms)
        outcome = outcome_of(claim, policy, answer, walk, self._jitter)
        return Executed(outcome if now.routes.cold_queue else without_cold(outcome, policy), attempts, run_ms)

    def _plan(self, claim: Claim, job: LLMJob, policy: JobPolicy, owner: Owner, spent: int) -> tuple[Plan, Frugal]:
        """The plan, and what is sent: with what a late, too long or too expensive job gives up for it."""

        def replan(body: ChatBody, restraint: Restraint) -> Plan:
            return self._planner.plan(claim.job_id, job, body, policy.requires, spent, restraint)

        sent = frugal(job, owner, self._allowances, self._now.routes.routes)
        late = claim.claimed_ms - claim.accepted_ms > policy.max_time_to_answer_seconds * 1000
        may_shorten = "shorter_context" in policy.degrade
        if late and may_shorten and SHORTER not in sent.given_up:
            sent.shorten()
        planned = replan(sent.body, sent.restraint)
        while may_shorten and _too_long(planned) and sent.shorten():
            planned = replan(sent.body, sent.restraint)
        planned = affordable(sent, planned, replan)
        if late and "smaller_model" in policy.degrade and planned.order == "listed":
            whole = [route for route in planned.candidates if route.name not in planned.lacks]
            ordered = (*smaller_first(whole), *planned.candidates[len(whole) :])
            if ordered != planned.candidates:
                planned, sent.given_up["smaller_model"] = replace(planned, candidates=ordered), None
        return planned, sent

    def _read(self, claim: Claim) -> LLMJob | Outcome:
        keep = self._now.policies.of_known("default").keep_dead_seconds
        try:
            return decode_job(claim.data)
        except ForeignJob as foreign:
            detail = f"{foreign.function} is not an LLM job; it was not run"
            return Dead(DeadReason.DISALLOWED, detail, (), keep)
        except InvalidJob as error:
            return Dead(DeadReason.MALFORMED, str(error), (), keep)
        except NewerSchema as newer:
            return Park(NEWER_SCHEMA_WAIT_SECONDS, f"a newer worker: {newer}", trail_of(claim))


def _result(claim: Claim, answer: Answer, walk: Walk, *, attempts: int, run_ms: int, degraded: str | None) -> JobResult:
    usage = answer.completion.get("usage")
    usage = usage if isinstance(usage, dict) else None
    cost, baseline = cost_micros(walk.trail), walk.plan.baseline
    price = baseline.price if baseline and usage else None
    instead = billed_micros(price, usage) if price and usage else None
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
        trail=walk.trail,
    )


def _walk(
    claim: Claim,
    job: LLMJob,
    policy: JobPolicy,
    planned: Plan,
    sent: Frugal,
    owner: Owner,
    trail: list[TrailEntry],
    spent: int,
) -> Walk:
    """What this execution may spend on its way over the candidates."""
    seconds = min(policy.deadline_seconds, (claim.expires_ms - claim.claimed_ms) / 1000)
    return Walk(
        job_id=claim.job_id,
        ordinal=claim.ordinal,
        body=sent.body,
        idempotency_key=job.provider_key(claim.job_id),
        deadline=asyncio.get_running_loop().time() + seconds,
        attempts_left=policy.attempts - charged(trail),
        trail=trail,
        first_token_seconds=policy.first_token_seconds,
        failover_on_refusal=policy.failover_on_refusal,
        known=len(trail),
        tenant=job.tenant_id,
        plan=planned,
        spent=spent,
        owner=owner,
    )


def _kept(claim: Claim, kept: Mapping[str, Any], trail: Sequence[TrailEntry]) -> JobResult:
    """The result of a job whose answer was kept: it costs what its own attempts did, mostly nothing."""
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
    """Whether no route is left, and some would take less context."""
    codes = (each.code for each in planned.rejected)
    return not planned.candidates and any(code is RejectedFor.CONTEXT_WINDOW for code in codes)


def _too_large(answer: Answer | Unanswered) -> bool:
    """Whether every route that was tried found the context too long."""
    failures = answer.failures if isinstance(answer, Unanswered) and answer.passed_over is None else ()
    return bool(failures) and all(failure.action is Action.LARGER for failure in failures)
