"""`failover job why ID`: the state and the history of a job in words."""

from __future__ import annotations

import time
from typing import Any

import redis

from producer import Producer, keyspace
from producer.job import DeadReason, JobResult, JobStatus
from producer.keyspace import JobField
from producer.scripts import ask
from producer.trail import Attempt, Planned, TrailEntry
from worker.breakers import health
from worker.control.pause import paused
from worker.control.worker_registry import alive, usable, views, withheld
from worker.humanize import many
from worker.queue import fair_queue
from worker.queue.dead_letters import now_ms, queue_of
from worker.queue.trail import cost_micros
from worker.reports.decision import decision_of
from worker.routes.prices import dollars

_REQUEUE = "`failover dlq requeue {job_id}`"
_NEXT = {
    DeadReason.EXHAUSTED: f"when the providers work again (`failover status`): {_REQUEUE}",
    DeadReason.EXPIRED: f"if somebody still wants the answer: {_REQUEUE}",
    DeadReason.REJECTED: "correct the request and submit it again; `failover job why {job_id}` has each route's answer",
    DeadReason.REFUSED: "a person answers it: `failover dlq resolve {job_id} --answer FILE`",
    DeadReason.CRASHED: f"read the workers' last log lines, then {_REQUEUE}",
    DeadReason.FAILED_BY_RQ: f"stop that `rq worker` (`failover doctor` names it), then {_REQUEUE}",
    DeadReason.OVER_BUDGET: f"raise the cap (`failover budget show`) or make the job smaller, then {_REQUEUE}",
    DeadReason.MALFORMED: "correct what submits it, then `failover dlq discard {job_id}`",
    DeadReason.DISALLOWED: "correct what submits it, then `failover dlq discard {job_id}`",
}


def without_answer(result: JobResult) -> str:
    """Why a job has no answer (yet), and the next step, for people."""
    state = f"job {result.job_id} is {result.status}"
    if result.dead_reason is not None:
        following = _NEXT[result.dead_reason].format(job_id=result.job_id)
        return f"{state} ({result.dead_reason}): {result.dead_detail or 'no detail is known'}\nnext: {following}"
    if result.status.ended:
        return state
    waits = f"it waits for {result.waiting_for}" if result.waiting_for else "it has not ended yet"
    return f"{state}: {waits}\nnext: `failover job why {result.job_id}` says what it waits for"


def story(producer: Producer, result: JobResult) -> dict[str, Any]:
    """The report on one job: `facts`, `decision` and `trail` as data, `told` as lines for people. Raises
    UnknownJob."""
    client = producer.client
    job_id = result.job_id
    queue = queue_of(client, job_id)
    facts = _facts(client, job_id)
    now = now_ms(client)
    lines = [_state(client, queue, job_id, result, facts, now)]
    if not result.status.ended and now > int(facts.get(JobField.PROMISED, now)):
        lines.append(_late(producer, job_id, facts))
    lines += _history(facts)
    lines += [entry_told(entry) for entry in result.trail]
    if result.degraded:
        lines.append(f"degraded: {result.degraded}")
    if result.dead_reason is DeadReason.OVER_BUDGET:
        lines.append(
            "caps: max_cost_usd in policies/routing.yaml; feature and month in policies/budgets.yaml; prices: routes.json. "
            "Fix the cause named above, then requeue the job"
        )
    lines.append(_cost(result))
    trail = [entry.model_dump(mode="json", exclude_none=True) for entry in result.trail]
    return {
        "job_id": job_id,
        "queue": queue,
        "status": str(result.status),
        "facts": facts,
        "decision": decision_of(result),
        "trail": trail,
        "told": lines,
    }


def _facts(client: redis.Redis, job_id: str) -> dict[str, str]:
    names = (
        JobField.ACCEPTED, JobField.EXPIRES, JobField.STOPPED, JobField.PROMISED, JobField.TENANT, JobField.TYPE,
        JobField.LEASE, JobField.EXECUTIONS, JobField.CRASHES, JobField.ATTEMPTS, JobField.GENERATION, JobField.REQUEUED,
        JobField.REQUEUED_WHO, "worker_name", "created_at", "started_at", "ended_at",
    )  # fmt: skip
    (values,) = ask(client, [("HMGET", keyspace.job(job_id), *names)])
    return {name: value.decode() for name, value in zip(names, values, strict=True) if value}


def _state(client: redis.Redis, queue: str, job_id: str, result: JobResult, facts: dict[str, str], now: int) -> str:
    """One sentence: its state, what it waits for, and until when."""
    match result.status:
        case JobStatus.QUEUED if result.waiting_for:
            return f"queued: waits for {result.waiting_for}; {_expiry(client, queue, facts, now)}"
        case JobStatus.QUEUED:
            position = fair_queue.place(client, queue, job_id, facts.get(JobField.TENANT, ""))
            position = position or "not in the list: the audit will find it"
            held = held_up(client, queue, facts.get(JobField.TENANT, ""))
            return f"queued in {queue}, {position}{f'; {held}' if held else ''}; {_expiry(client, queue, facts, now)}"
        case JobStatus.RUNNING:
            lease = f"{job_id}:{facts.get(JobField.LEASE, '')}"
            (until,) = ask(client, [("ZSCORE", keyspace.leases(queue), lease)])
            held = f"its lease ends in {(float(until) - now) / 1000:.0f} s" if until else "its lease is lost"
            return f"running on {facts.get('worker_name') or '?'} since {facts.get('started_at', '?')}; {held}"
        case JobStatus.RETRYING | JobStatus.PARKED:
            left = max(0, (result.waiting_until_ms or now) - now) / 1000
            until = _at(result.waiting_until_ms)
            return f"{result.status}: waits for {result.waiting_for}; continues in {left:.0f} s, at {until}"
        case JobStatus.DEAD:
            return (
                f"dead since {facts.get('ended_at', '?')}: {result.dead_reason}: {result.dead_detail}; "
                f"`failover dlq requeue {job_id}` runs it again, `failover dlq resolve {job_id} --answer FILE` answers it"
            )
        case JobStatus.DONE:
            by = f"by {result.route} ({result.tier})" if result.route else f"by a {result.resolved_by}"
            by = f"with the cached answer of {result.route}" if result.cache_hit else by
            tried = f"{many(result.attempts, 'attempt')} and {result.run_ms or 0} ms"
            return f"done at {facts.get('ended_at', '?')} {by}, after {tried}"
        case JobStatus.CANCELLED:
            return f"cancelled at {facts.get('ended_at', '?')}"


def held_up(client: redis.Redis, queue: str, tenant: str) -> str:
    """Why no job of the tenant starts now: a pause, no worker, no route that may be used; "" if nothing is known of it."""
    flags = paused(client, [queue])
    told = [f"paused: {flag}" for flag in flags if flag.concerns(queue) or (tenant and flag.tenant == tenant)][:1]
    told += [] if alive(client, queue) else ["no worker is running"]
    routes = usable(views(client))
    shut = {name: str(flag) for flag in flags for name in withheld(routes, [flag])}
    standing = health.of_routes(client, [name for name in routes if name not in shut])
    if routes and not any(each.serves for each in standing.values()):
        rests = {name: each.rests_for or each.breaker for name, each in standing.items()}
        told.append("no route can be used: " + ", ".join(f"{name} ({why})" for name, why in (rests | shut).items()))
    return "; ".join(told)


def _expiry(client: redis.Redis, queue: str, facts: dict[str, str], now: int) -> str:
    """When it expires; pauses of its queue move the time."""
    ((total, since),) = ask(client, [("HMGET", keyspace.stopped(queue), "total", "since")])
    lasting = max(0, now - int(since)) if since else 0
    stopped_ms = int(total or 0) + lasting - int(facts.get(JobField.STOPPED, 0))
    until = _at(int(facts.get(JobField.EXPIRES, 0)) + stopped_ms)
    return f"expires at {until}" + (", if it is resumed now" if since else "")


def _late(producer: Producer, job_id: str, facts: dict[str, str]) -> str:
    policy = producer.policies.of_known(facts.get(JobField.TYPE, "default"))
    human = f"; a person may answer it: `failover dlq resolve {job_id} --answer FILE`"
    return f"late: promised at {_at(facts[JobField.PROMISED])}" + (human if policy.human_review else "")


def _history(facts: dict[str, str]) -> list[str]:
    lines = [
        f"{facts.get('created_at', '?')}  accepted: {facts.get(JobField.TYPE, '?')} for {facts.get(JobField.TENANT, '?')}"
    ]
    if JobField.GENERATION in facts:
        times, who = facts[JobField.GENERATION], facts.get(JobField.REQUEUED_WHO, "?")
        lines.append(f"{_at(facts.get(JobField.REQUEUED))}  requeued, {times} times so far, last by {who}")
    if crashes := facts.get(JobField.CRASHES):
        lines.append(f"{crashes} of its workers crashed")
    if executions := facts.get(JobField.EXECUTIONS):
        lines.append(f"{executions} executions failed on every route")
    return lines


def entry_told(entry: TrailEntry) -> str:
    """One line for an entry of a trail."""
    if isinstance(entry, Planned):
        return _plan(entry)
    at = f"{_at(entry.at_ms)}  " if isinstance(entry, Attempt) and entry.at_ms else ""
    where = f"{at}execution {entry.execution}: {entry.route} ({entry.tier})"
    if not isinstance(entry, Attempt):
        return f"{where} not tried: {entry.rejected}"
    detail = f" {entry.detail}" if entry.detail else ""
    billed = ", may have been billed" if entry.ambiguous else ""
    status = f" {entry.status}" if entry.status else ""
    facts = [f"breaker {entry.breaker}"] if entry.breaker != "closed" else []
    if entry.key:
        facts.append(f"key of {entry.key}")
    if entry.prompt_tokens is not None:
        facts.append(f"{entry.prompt_tokens} + {entry.completion_tokens or 0} tokens")
    if entry.cost_usd is not None:
        facts.append(f"${entry.cost_usd:.6f}")
    if entry.may_cost_usd is not None:
        facts.append(f"at most ${entry.may_cost_usd:.6f}")
    if entry.dropped:
        facts.append(f"changed before sending: {', '.join(entry.dropped)}")
    more = f" ({'; '.join(facts)})" if facts else ""
    return f"{where} {entry.outcome}{status} in {entry.ms} ms{billed}{detail}{more}"


def _plan(plan: Planned) -> str:
    """The plan: the order, with the estimate and the p95 of each candidate at that time."""
    candidates = []
    for name in plan.candidates:
        known = [f"${plan.estimates_usd[name]:.6f}"] if name in plan.estimates_usd else []
        known += [f"p95 {plan.p95_ms[name]} ms"] if name in plan.p95_ms else []
        candidates.append(f"{name} ({', '.join(known)})" if known else name)
    cap = f", at most ${plan.max_cost_usd:.6f}" if plan.max_cost_usd is not None else ""
    why = f", cost saving: {plan.reduced}" if plan.reduced else ""
    return f"execution {plan.execution} planned ({plan.order}{cap}{why}): {', then '.join(candidates) or 'no route'}"


def _cost(result: JobResult) -> str:
    may = sum(entry.may_cost_usd or 0.0 for entry in result.attempted)
    perhaps = f"; up to ${may:.6f} more if attempts without an answer were billed" if may else ""
    if result.cost_usd is None:
        known = cost_micros(result.trail)
        return (f"cost: ${dollars(known):.6f}" if known is not None else "cost: unknown") + perhaps
    if result.cache_hit:
        return f"cost: ${result.cost_usd:.6f}, because the answer was cached"
    usage = result.usage or {}
    tokens = f"{usage.get('prompt_tokens', '?')} tokens in, {usage.get('completion_tokens', '?')} out"
    delta = ""
    if result.cost_delta_usd is not None:
        delta = f"; on the baseline route ${result.baseline_cost_usd:.6f}, so {result.cost_delta_usd:+.6f}"
    return f"cost: {tokens}, ${result.cost_usd:.6f}{delta}{perhaps}"


def _at(ms: str | int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(ms) / 1000)) if ms else "?"
