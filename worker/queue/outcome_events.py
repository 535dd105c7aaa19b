"""Makes the events of an execution that ended: its kind, and the facts that logs, messages, metrics and traces use; and the
record of it that the settling script writes for the history."""

from __future__ import annotations

from pydantic_core import to_json

from producer.trail import Attempt
from worker.events import Event, EventKind
from worker.queue.claim import Claim
from worker.queue.outcomes import Dead, Done, Executed, Outcome, Park, Released, Retry
from worker.queue.trail import NO_TRAIL, trail_of
from worker.queue.transitions import Settled


def event_of(claim: Claim, executed: Executed, verdict: Settled) -> Event:
    """The event of an outcome. `verdict`: what the settle did; a fenced outcome changed nothing, and has its own kind."""
    facts: dict[str, object] = {}
    match executed.outcome:
        case Done(result=result):
            kind = EventKind.DONE
            facts = {"route": result.route, "tier": result.tier, "attempts": result.attempts, "run_ms": result.run_ms}
            facts |= {"cache_hit": True} if result.cache_hit else {}
            facts |= {"hops": result.failover_hops, "cost_usd": result.cost_usd, "delta_usd": result.cost_delta_usd}
        case Retry(wait, why):
            kind, facts = EventKind.RETRIED, {"in_seconds": round(wait, 1), "why": why}
        case Park(wait, waiting):
            kind = EventKind.PARKED
            facts = {"in_seconds": round(wait, 1), "reason": str(waiting.reason), "why": str(waiting)}
        case Dead(reason, detail):
            kind, facts = EventKind.DEAD, {"reason": str(reason), "why": detail}
        case Released():
            kind = EventKind.RELEASED
    if verdict is Settled.FENCED:
        kind, facts["outcome"] = EventKind.FENCED, str(kind)
    return Event(kind, claim.job_id, facts)


def executed_event(claim: Claim, executed: Executed, ended: Event) -> Event:
    """All that is known of an execution, with the tags that every request bears. `ended`: the event of its outcome."""
    outcome = executed.outcome
    result = outcome.result if isinstance(outcome, Done) else None
    attempts = _own_attempts(claim, outcome)
    answered = attempts[-1] if attempts and attempts[-1].outcome == "ok" else None
    costs = [cost for entry in attempts if (cost := entry.cost_usd) is not None]
    waited_ms = max(0, claim.claimed_ms - claim.accepted_ms)
    facts: dict[str, object] = {
        "queue": claim.queue,
        "execution": claim.ordinal,
        "lease": claim.lease,
        "crashed_before": claim.suspect,
        "claimed_at": claim.received,
        "waited_ms": waited_ms,
        "outcome": ended.kind.value,
        "reason": ended.facts.get("reason") or (attempts[-1].outcome if attempts and answered is None else ""),
        "tenant": executed.tenant,
        "user": executed.user,
        "feature": executed.feature,
        "job_type": executed.job_type,
        "route": result.route if result is not None else None,
        "provider": result.provider if result is not None else None,
        "model": result.model if result is not None else None,
        "input_tokens": answered.prompt_tokens if answered is not None else None,
        "output_tokens": answered.completion_tokens if answered is not None else None,
        "latency_ms": waited_ms + round((ended.at - claim.received) * 1000),
        "cost_usd": sum(costs) if costs else None,
        "cache_hit": result is not None and result.cache_hit,
        "traceparent": executed.traceparent,
        "attempts": attempts,
        "completion": result.completion if result is not None else None,
        "data": claim.data,
    }
    return Event(EventKind.EXECUTED, claim.job_id, facts, ended.at)


def record_of(claim: Claim, executed: Executed) -> bytes:
    """What the history counts of an outcome (JSON); empty for one that changed nothing."""
    outcome = executed.outcome
    own = _own_attempts(claim, outcome)
    attempts = [(entry.route, entry.outcome, entry.ms) for entry in own]
    record: dict[str, object] = {"tenant": executed.tenant, "feature": executed.feature, "attempts": attempts}
    match outcome:
        case Done(result=result, saved=saved):
            answer_ms = (result.queue_latency_ms or 0) + (result.run_ms or 0)
            late = executed.promised_ms is not None and answer_ms > executed.promised_ms
            flags = {"saved": saved, "degraded": result.degraded, "cached": result.cache_hit, "late": late}
            record |= {"kind": "done", "route": result.route, "provider": result.provider, "answer_ms": answer_ms}
            record |= {"run_ms": executed.run_ms, "flags": [name for name, holds in flags.items() if holds]}
            if result.cost_usd is not None:
                record["cost_micros"] = round(result.cost_usd * 1e6)
            if own and (first_ms := own[-1].first_token_ms) is not None:
                record["first_token_ms"] = first_ms
        case Dead(reason):
            record |= {"kind": "dead", "reason": reason}
        case Retry():
            record["kind"] = "retried"
        case Park():
            record["kind"] = "parked"
        case Released():
            if not attempts:
                return b""
            record["kind"] = "released"
    return to_json(record)


def _own_attempts(claim: Claim, outcome: Outcome) -> list[Attempt]:
    """The attempts of this execution. Their number does not tell them: one that parked a job has not used up its number."""
    trail = outcome.result.trail if isinstance(outcome, Done) else outcome.trail
    attempts = [entry for entry in trail if isinstance(entry, Attempt)]
    if claim.trail == NO_TRAIL:
        return attempts  # most jobs
    return attempts[sum(isinstance(entry, Attempt) for entry in trail_of(claim)) :]
