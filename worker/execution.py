"""One execution of one job, straight down the page: what was claimed -> plan -> attempts -> outcome."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from producer.errors import InvalidJob
from producer.job import (
    BROKEN_OFF,
    Attempt,
    DeadReason,
    ForeignJob,
    JobResult,
    JobStatus,
    LLMJob,
    NewerSchema,
    Rejection,
    decode_job,
)
from producer.policy import Degrade, JobPolicy, Policies
from worker.degrade import degraded, shorter_context
from worker.outcomes import Dead, Done, Outcome, Park, Released, Retry
from worker.planner import plan
from worker.router import Answer, Router, Unanswered, truncated
from worker.routes import Routes
from worker.taxonomy import UNABLE, Action
from worker.transitions import Claim
from worker.walk import Walk

log = logging.getLogger("failover.worker")

NEWER_SCHEMA_WAIT_SECONDS = 60.0
PARK_MARGIN_SECONDS = 0.5  # after the opening: whoever probed last lets another job go first
PARK_UNTRIED_SECONDS = 10.0  # jobs for which no route is open do not ask again and again while others are served
PARK_WITHHELD_SECONDS = (10.0, 300.0)  # first and longest, while a route that may be able to is paused
PROBES_TOLD = 20  # and as many of the attempts that were excused

_FINAL = {Action.REJECT: DeadReason.REJECTED, Action.REFUSE: DeadReason.REFUSED}

_TRAIL = TypeAdapter(list[Attempt | Rejection])


@dataclass(frozen=True)
class Executed:
    """An outcome, with the job's totals over all its executions so far."""

    outcome: Outcome
    attempts: int
    run_ms: int


class Executor:
    """Executes claims. `jitter` gives numbers in 0..1."""

    def __init__(self, policies: Policies, routes: Routes, router: Router, jitter: Callable[[], float]) -> None:
        self._policies, self._routes, self._router, self._jitter = policies, routes, router, jitter

    async def run(self, claim: Claim) -> Executed:
        """Every claim ends in an outcome: cancelled (the drain), it is Released; a fault of ours is a Retry."""
        trail = trail_of(claim)
        try:
            return await self._run(claim, trail)
        except asyncio.CancelledError:
            return Executed(Released(trail), _made(claim, trail), claim.run_ms)
        except Exception as error:
            log.exception("an execution failed in our own code", extra={"job": claim.job_id})
            policy = self._policies.of_known("default")
            said = f"failover-worker itself failed: {type(error).__name__}"
            outcome: Outcome = Retry(policy.backoff_seconds.max, said, trail)
            if claim.executions + 1 >= policy.executions:
                outcome = Dead(DeadReason.EXHAUSTED, said, trail, policy.keep_dead_seconds)
            return Executed(outcome, _made(claim, trail), claim.run_ms)

    async def _run(self, claim: Claim, trail: list[Attempt | Rejection]) -> Executed:
        # 1. is the answer still worth anything?
        left_ms = claim.expires_ms - claim.claimed_ms
        if left_ms <= 0:
            keep = self._policies.of_known("default").keep_dead_seconds
            return _untried(claim, Dead(DeadReason.EXPIRED, "its answer would come too late", trail, keep))

        # 2. read the job
        job = self._read(claim)
        if not isinstance(job, LLMJob):
            return _untried(claim, job)
        policy = self._policies.of_known(job.job_type)

        # 3. plan: which routes, in which order; what to give up when it is late
        planned = plan(job, policy, self._routes)
        late = claim.claimed_ms - claim.accepted_ms > policy.max_time_to_answer_seconds * 1000
        body, candidates, given_up = job.body, planned.candidates, dict[Degrade, None]()
        if late:
            body, candidates, modes = degraded(body, candidates, policy.degrade)
            given_up = dict.fromkeys(modes)

        if not candidates:
            unable = "no route can do what this job needs"
            return _untried(claim, Dead(DeadReason.REJECTED, unable, trail, policy.keep_dead_seconds))

        # 4. attempts
        deadline = asyncio.get_running_loop().time() + min(policy.deadline_seconds, left_ms / 1000)
        attempts_left = policy.attempts - sum(isinstance(entry, Attempt) and entry.charged for entry in trail)
        key = job.provider_key(claim.job_id)
        walk = Walk(
            job_id=claim.job_id,
            ordinal=claim.ordinal,
            body=body,
            idempotency_key=key,
            deadline=deadline,
            attempts_left=attempts_left,
            trail=trail,
            first_token_seconds=policy.first_token_seconds,
            failover_on_refusal=policy.failover_on_refusal,
            known=len(trail),
        )
        for rejected in planned.rejected:
            walk.reject(rejected.route, rejected.reason)
        started = time.monotonic()
        answer = await self._router.execute(candidates, walk)
        while _too_large(answer) and "shorter_context" in policy.degrade:
            longer, walk.body = walk.body, shorter_context(walk.body)
            if walk.body is longer:
                break
            given_up = dict.fromkeys([*given_up, "shorter_context"])
            answer = await self._router.execute(candidates, walk)

        # 5. outcome
        run_ms = claim.run_ms + round((time.monotonic() - started) * 1000)
        attempts = claim.attempts + walk.attempts
        if isinstance(answer, Answer):
            result = _result(
                claim, answer, walk, attempts=attempts, run_ms=run_ms, degraded=", ".join(given_up) or None
            )
            saved = answer.route.name != candidates[0].name
            return Executed(Done(result, policy.keep_results_seconds, saved), attempts, run_ms)
        any_route_will_do = not planned.rejected
        return Executed(self._unanswered(claim, policy, answer, walk, any_route_will_do), attempts, run_ms)

    def _read(self, claim: Claim) -> LLMJob | Outcome:
        keep = self._policies.of_known("default").keep_dead_seconds
        try:
            return decode_job(claim.data)
        except ForeignJob as foreign:
            detail = f"{foreign.function} is not an LLM job; it was not run"
            return Dead(DeadReason.DISALLOWED, detail, (), keep)
        except InvalidJob as error:
            return Dead(DeadReason.MALFORMED, str(error), (), keep)
        except NewerSchema as newer:
            return Park(NEWER_SCHEMA_WAIT_SECONDS, f"a newer worker: {newer}", trail_of(claim))

    def _unanswered(
        self, claim: Claim, policy: JobPolicy, unanswered: Unanswered, walk: Walk, any_route_will_do: bool
    ) -> Outcome:
        """No route answered: is that for good, for now, or for want of an open route?

        When no route is open to a job that takes any, none is open to the others either: it keeps its place.
        """
        failures = unanswered.failures
        last = failures[-1] if failures else None
        said = f"{last.code}: {last.detail}".rstrip(": ") if last else "no route may be tried"

        def dead(reason: DeadReason, detail: str = said) -> Dead:
            return Dead(reason, detail, walk.trail, policy.keep_dead_seconds)

        if last and (reason := _FINAL.get(last.action)):
            return dead(reason)
        if failures and unanswered.withheld:
            trail, excused = _excused(walk)
            longest = min(PARK_WITHHELD_SECONDS[0] * 2 ** min(excused, 10), PARK_WITHHELD_SECONDS[1])
            wait = longest * (1 + self._jitter()) / 2
            return Park(wait, f"a paused route: {unanswered.withheld}; the others: {said}", trail)
        if failures and all(failure.action in UNABLE for failure in failures):
            if unanswered.passed_over is None or walk.attempts_left <= 0:
                return dead(DeadReason.REJECTED)
            wait = max(unanswered.passed_over, PARK_UNTRIED_SECONDS) + PARK_MARGIN_SECONDS * self._jitter()
            return Park(wait, f"a route that may be able to ({said})", walk.trail)
        if unanswered.opens_in is not None and not walk.burned and walk.attempts_left > 0:
            if not failures and any_route_will_do:
                return Released(walk.trail)
            soonest = 0.0 if failures else PARK_UNTRIED_SECONDS
            wait = max(unanswered.opens_in, soonest) + PARK_MARGIN_SECONDS * (1 + self._jitter())
            return Park(
                wait, "a route to open" + (f" ({said})" if failures else ""), walk.trail, in_turn=any_route_will_do
            )
        if walk.attempts_left <= 0:
            return dead(DeadReason.EXHAUSTED, f"{policy.attempts} attempts; the last: {said}")
        if claim.executions + 1 >= policy.executions:
            return dead(DeadReason.EXHAUSTED, f"{policy.executions} executions; the last: {said}")
        wait = min(policy.backoff_seconds.first * 2**claim.executions, policy.backoff_seconds.max) * self._jitter()
        return Retry(wait, said, walk.trail)


def _result(claim: Claim, answer: Answer, walk: Walk, *, attempts: int, run_ms: int, degraded: str | None) -> JobResult:
    usage = answer.completion.get("usage")
    return JobResult(
        job_id=claim.job_id,
        status=JobStatus.DONE,
        completion=answer.completion,
        route=answer.route.name,
        provider=answer.route.entry.provider,
        model=answer.route.entry.model,
        tier=answer.route.tier,
        attempts=attempts,
        failover_hops=answer.hops,
        usage=usage if isinstance(usage, dict) else None,
        queue_latency_ms=max(0, claim.claimed_ms - claim.accepted_ms - claim.run_ms),
        run_ms=run_ms,
        degraded=degraded,
        truncated=truncated(answer.completion),
        resolved_by="model",
        trail=walk.trail,
    )


def _too_large(answer: Answer | Unanswered) -> bool:
    """Whether every route that was tried found the context too long."""
    failures = answer.failures if isinstance(answer, Unanswered) and answer.passed_over is None else ()
    return bool(failures) and all(failure.action is Action.LARGER for failure in failures)


def _excused(walk: Walk) -> tuple[list[Attempt | Rejection], int]:
    """The trail with this execution's attempts excused, as the pause of another route and not the job is to blame; and how
    many were excused before."""
    before = sum(isinstance(entry, Attempt) and entry.excused for entry in walk.trail)
    return [
        entry.model_copy(update={"excused": True}) if isinstance(entry, Attempt) and position >= walk.known else entry
        for position, entry in enumerate(walk.trail)
    ], before


def given_back(claim: Claim) -> Executed:
    """A claim that was not executed."""
    return _untried(claim, Released(trail_of(claim)))


def _untried(claim: Claim, outcome: Outcome) -> Executed:
    """An outcome without an attempt."""
    return Executed(outcome, claim.attempts, claim.run_ms)


def _made(claim: Claim, trail: Sequence[Attempt | Rejection]) -> int:
    """The job's attempts when an execution was cut off: those before it, and those that it had ended."""
    own = (entry for entry in trail if isinstance(entry, Attempt) and entry.execution == claim.ordinal)
    return claim.attempts + sum(entry.outcome != BROKEN_OFF for entry in own)


def trail_of(claim: Claim) -> list[Attempt | Rejection]:
    """The attempts so far, the newest probes among them; rejections are told for the newest execution only.

    A trail that cannot be read is not worth a job.
    """
    try:
        attempts = [entry for entry in _TRAIL.validate_json(claim.trail) if isinstance(entry, Attempt)]
    except ValidationError:
        return []
    free = ([e for e in attempts if e.probe], [e for e in attempts if e.excused])
    forgotten = {id(entry) for entries in free for entry in entries[:-PROBES_TOLD]}
    return [entry for entry in attempts if id(entry) not in forgotten]
