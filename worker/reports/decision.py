"""The routing decision of one job as one event for programs: the plan, the attempts, the route that answered, and the cost.

It is computed from the job's trail, so that nothing is recorded twice.
"""

from __future__ import annotations

from typing import Any

from producer.job import JobResult
from producer.trail import Attempt, Planned, Rejection
from worker.routes.usage import count


def decision_of(result: JobResult) -> dict[str, Any]:
    """The plan of the newest execution and the attempts of all. Money in US dollars, times in milliseconds; None if
    unknown."""
    planned = next((entry for entry in reversed(result.trail) if isinstance(entry, Planned)), None)
    rejections = [entry for entry in result.trail if isinstance(entry, Rejection)]
    return {
        "job_id": result.job_id,
        "status": str(result.status),
        "order": planned.order if planned else None,
        "max_cost_usd": planned.max_cost_usd if planned else None,
        "candidates": [*_kept(planned, {entry.route for entry in rejections}), *map(_rejected, rejections)],
        "attempts": [entry.model_dump(mode="json") for entry in result.attempted],
        "chosen": result.route,
        "why": _why(result, planned),
        "failover_hops": result.failover_hops,
        "degraded": result.degraded,
        "cache_hit": result.cache_hit,
        "prompt_tokens": count(result.usage or {}, "prompt_tokens"),
        "completion_tokens": count(result.usage or {}, "completion_tokens"),
        "cost_usd": result.cost_usd,
        "baseline": planned.baseline if planned else None,
        "baseline_cost_usd": result.baseline_cost_usd,
        "cost_delta_usd": result.cost_delta_usd,
        "queue_latency_ms": result.queue_latency_ms,
        "run_ms": result.run_ms,
    }


def _kept(planned: Planned | None, rejected_later: set[str]) -> list[dict[str, Any]]:
    """Candidates by rank, without those rejected later: they are listed with the rejections."""
    if planned is None:
        return []
    return [
        {
            "route": name,
            "kept": True,
            "rank": rank,
            "estimate_usd": planned.estimates_usd.get(name),
            "p95_ms": planned.p95_ms.get(name),
        }
        for rank, name in enumerate(planned.candidates, 1)
        if name not in rejected_later
    ]


def _rejected(entry: Rejection) -> dict[str, Any]:
    return {"route": entry.route, "kept": False, "code": entry.code and str(entry.code), "reason": entry.rejected}


def _why(result: JobResult, planned: Planned | None) -> str | None:
    """Why this route answered: it was the first candidate, or those before it failed or were rejected."""
    if result.route is None:
        return result.dead_detail or result.waiting_for
    if result.cache_hit:
        return "the answer came from the cache"
    if planned and planned.candidates and planned.candidates[0] == result.route:
        earlier = {entry.execution for entry in result.attempted} - {planned.execution}
        return "the first candidate" + (f", after {len(earlier)} failed executions" if earlier else "")
    failed: list[str] = [f"{entry.route} {entry.outcome}" for entry in result.attempted if _failed(entry, result.route)]
    order = planned.candidates if planned else ()
    before = set(order[: order.index(result.route)]) if result.route in order else set()
    rejected = (entry for entry in result.trail if isinstance(entry, Rejection) and entry.route in before)
    skipped = [f"{entry.route} {entry.code or entry.rejected}" for entry in rejected]
    return "after " + ", ".join(dict.fromkeys([*failed, *skipped])) if failed or skipped else None


def _failed(entry: Attempt, answered: str) -> bool:
    return entry.outcome != "ok" and entry.route != answered
