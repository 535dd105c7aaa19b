"""What happened, told once: one log line for each execution that ended."""

from __future__ import annotations

import logging

from worker.queue.claim import Claim
from worker.queue.outcomes import Dead, Done, Executed, Park, Released, Retry
from worker.queue.transitions import Settled

log = logging.getLogger("failover.worker")


def tell(claim: Claim, executed: Executed, verdict: Settled) -> None:
    """The outcome, or that it was fenced. Dead and fenced ones are warnings."""
    facts: dict[str, object] = {"job": claim.job_id}
    match executed.outcome:
        case Done(result=result):
            event = "done"
            facts |= {"route": result.route, "tier": result.tier, "attempts": result.attempts, "run_ms": result.run_ms}
            facts |= {"cache_hit": True} if result.cache_hit else {}
            facts |= {"hops": result.failover_hops, "cost_usd": result.cost_usd, "delta_usd": result.cost_delta_usd}
        case Retry(wait, why):
            event = "retry"
            facts |= {"in_seconds": round(wait, 1), "why": why}
        case Park(wait, why):
            event = "parked"
            facts |= {"in_seconds": round(wait, 1), "why": why}
        case Dead(reason, detail):
            event = "dead"
            facts |= {"reason": str(reason), "why": detail}
        case Released():
            event = "released"
    if verdict is Settled.FENCED:
        facts["outcome"], event = event, "fenced"
    level = logging.WARNING if event in ("dead", "fenced") else logging.INFO
    log.log(level, event, extra=facts)
