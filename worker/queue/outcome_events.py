"""Makes the event of an execution that ended: its kind, and the facts that logs, messages and metrics use."""

from __future__ import annotations

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
