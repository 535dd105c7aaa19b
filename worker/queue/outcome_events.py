"""Makes the event of an execution that ended: its kind, and the facts that logs, messages and metrics use; and the record
of it that the settling script writes for the history."""

from __future__ import annotations

from pydantic_core import to_json

from producer.trail import Attempt
from worker.events import Event, EventKind
from worker.queue.claim import Claim
from worker.queue.outcomes import Dead, Done, Executed, Park, Released, Retry
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


def record_of(claim: Claim, executed: Executed) -> bytes:
    """What the history counts of an outcome (JSON); empty for one that changed nothing."""
    outcome = executed.outcome
    trail = outcome.result.trail if isinstance(outcome, Done) else outcome.trail
    own = [entry for entry in trail if isinstance(entry, Attempt) and entry.execution == claim.ordinal]
    attempts = [(entry.route, entry.outcome, entry.ms) for entry in own]
    record: dict[str, object] = {"tenant": executed.tenant, "feature": executed.feature, "attempts": attempts}
    match outcome:
        case Done(result=result, saved=saved):
            answer_ms = (result.queue_latency_ms or 0) + (result.run_ms or 0)
            late = executed.promised_ms is not None and answer_ms > executed.promised_ms
            flags = {"saved": saved, "degraded": result.degraded, "cached": result.cache_hit, "late": late}
            record |= {"kind": "done", "route": result.route, "provider": result.provider, "answer_ms": answer_ms}
            record |= {"run_ms": executed.run_ms, "flags": [name for name, holds in flags.items() if holds]}
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
