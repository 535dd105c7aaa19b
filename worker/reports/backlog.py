"""The estimate of `failover resume --dry-run`: how many jobs would start, their cost, and the duration of the drain.

It uses samples: queued jobs for the input tokens, done jobs for the output tokens, and the routes' latest calls for the
time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from producer import keyspace
from producer.errors import InvalidJob
from producer.job import ForeignJob, JobResult, JobStatus, LLMJob, NewerSchema, decode_job
from producer.results import result_commands, result_of
from producer.scripts import Command, ask
from worker.breakers import health
from worker.breakers.health import Health
from worker.control import worker_registry
from worker.control.admission import RAMP_FIRST_SHARE, RAMP_SECONDS
from worker.control.pause import BUDGET, EVERYTHING, RQ, Paused, Scope, paused
from worker.humanize import many
from worker.queue.fair_queue import SAMPLE, length_call, sampled, waiting_of
from worker.routes.names import canonical
from worker.routes.prices import PER_MILLION, Price, public_price
from worker.routes.tokens import estimated, longest_answer

LONG_MINUTES = 2  # shorter durations are printed in seconds
ASSUMED_OUTPUT_TOKENS = 400  # used while no job is done yet


@dataclass(frozen=True)
class Backlog:
    """The estimate. `dollars` and `minutes` are None if unknown, with the reason in `unknown`."""

    jobs: int
    dollars: float | None
    minutes: float | None
    slots: int
    still_paused: list[str]
    unknown: list[str]

    def __str__(self) -> str:
        cost = f"about ${self.dollars:.2f}" if self.dollars is not None else "cost unknown"
        time = "time unknown"
        if self.minutes is not None:
            long = self.minutes >= LONG_MINUTES
            length = f"{self.minutes:.0f} minutes" if long else f"{self.minutes * 60:.0f} seconds"
            time = f"about {length} on {many(self.slots, 'slot')}"
        lines = [f"{many(self.jobs, 'job')} would start: {cost}, {time}"]
        lines += [f"  {why}" for why in self.unknown]
        lines += [f"  staying paused: {flag}" for flag in self.still_paused]
        return "\n".join(lines)


def estimate(client: redis.Redis, scope: Scope, default_queue: str) -> Backlog:
    """The jobs that a resume of `scope` would start."""
    names = worker_registry.queues(client, default_queue)
    flags = paused(client, names)
    clears_budgets = scope == EVERYTHING and any(flag.scope == EVERYTHING and flag.who == BUDGET for flag in flags)
    staying = [flag for flag in flags if not _clears(flag, scope, clears_budgets)]
    freed = [name for name in names if scope.queue in (None, name) and not any(flag.concerns(name) for flag in staying)]
    views = worker_registry.views(client)
    slots = sum(view["slots"] for view in views)
    usable = worker_registry.usable(views)
    routes = {
        name: route
        for name, route in usable.items()
        if not any(flag.closes(name, route["provider"]) for flag in staying)
    }
    unknown = [] if any(_clears(flag, scope, clears_budgets) for flag in flags) else [f"{scope} is not paused"]
    unknown += _obstacles(slots, usable, routes, scope)
    waiting = {name: (0, []) if usable and not routes else _waiting(client, name, scope.tenant) for name in freed}
    jobs = sum(length for length, _ in waiting.values())
    standing = health.of_routes(client, list(routes))
    main_route = _main_route(routes, standing)
    minutes = _minutes(jobs, slots, standing.get(main_route or ""), unknown)
    dollars = _dollars(client, waiting, routes.get(main_route or ""), unknown)
    return Backlog(jobs, dollars, minutes, slots, [str(flag) for flag in staying], unknown)


def of_requeued(client: redis.Redis, queue: str, count: int, sample: Sequence[str]) -> Backlog:
    """What `count` dead letters of a queue will take once they are requeued. `sample`: ids of some of them."""
    flags = paused(client, [queue])
    views = worker_registry.views(client)
    slots = sum(view["slots"] for view in views)
    usable = worker_registry.usable(views)
    routes = {
        name: route for name, route in usable.items() if not any(flag.closes(name, route["provider"]) for flag in flags)
    }
    unknown = _obstacles(slots, usable, routes, EVERYTHING)
    standing = health.of_routes(client, list(routes))
    main_route = _main_route(routes, standing)
    jobs = [job for _, job in _jobs(client, [job_id.encode() for job_id in sample]) if job is not None]
    minutes = _minutes(count, slots, standing.get(main_route or ""), unknown)
    dollars = _dollars(client, {queue: (count, jobs)}, routes.get(main_route or ""), unknown)
    return Backlog(count, dollars, minutes, slots, [str(flag) for flag in flags if flag.concerns(queue)], unknown)


def cost(client: redis.Redis, queue: str, tenant: str) -> float | None:
    """About how many US dollars the queued jobs of a tenant will cost; None if unknown."""
    usable = worker_registry.usable(worker_registry.views(client))
    route = _main_route(usable, health.of_routes(client, list(usable)))
    return _dollars(client, {queue: _waiting(client, queue, tenant)}, usable.get(route or ""), [])


def _main_route(routes: Mapping[str, Any], standing: Mapping[str, Health]) -> str | None:
    """The route that most jobs use; None without any."""
    return next((name for name in routes if standing[name].serves), next(iter(routes), None))


def _clears(flag: Paused, scope: Scope, clears_budgets: bool) -> bool:
    """Whether a resume of `scope` clears the flag."""
    return flag.who != RQ and (flag.scope.flag == scope.flag or (clears_budgets and flag.who == BUDGET))


def _obstacles(slots: int, usable: dict[str, Any], routes: dict[str, Any], scope: Scope) -> list[str]:
    if not slots:
        return ["no worker is running: start `failover-worker`"]
    if usable and not routes:
        return ["every route stays paused or disabled: nothing would start"]
    served = {canonical(route["provider"]) for route in routes.values()}
    if scope.provider is not None and served - {canonical(scope.provider)}:
        return ["other routes serve these jobs already; a resume only adds this provider's routes"]
    return []


def _waiting(client: redis.Redis, queue: str, tenant: str | None) -> tuple[int, list[LLMJob]]:
    """(number of waiting jobs, a sample of them); with `tenant`, of its queued jobs.

    The sample is spread over the queue; scheduled jobs if none is queued. The list may have entries of expired jobs; the
    number is reduced by their share of the sample.
    """
    commands: list[Command] = [
        length_call(queue),
        ("LLEN", keyspace.queue(queue)),
        ("ZCARD", keyspace.scheduled(queue)),
    ]
    (queued, _), listed, scheduled = ask(client, commands)
    ids = [job_id for job_id in ask(client, [*sampled(queue, listed)]) if job_id]
    if tenant is not None:
        (own,) = ask(client, [("LRANGE", keyspace.tenant_queue(queue, tenant), 0, SAMPLE - 1)])
        sample = [job for _, job in _jobs(client, (*own, *ids)) if job is not None and job.tenant_id == tenant]
        return waiting_of(client, queue, tenant), sample[:SAMPLE]
    if not ids:
        (scheduled_ids,) = ask(client, [("ZRANGE", keyspace.scheduled(queue), 0, SAMPLE - 1)])
    facts = _jobs(client, ids or scheduled_ids)
    alive = sum(status == b"queued" for status, _ in facts)
    jobs = [job for _, job in facts if job is not None]
    return scheduled + (round(queued * alive / len(ids)) if ids else 0), jobs


def _jobs(client: redis.Redis, ids: Sequence[bytes]) -> list[tuple[bytes | None, LLMJob | None]]:
    """(status, job) of each; None for what cannot be read."""
    names = [job_id.decode(errors="replace") for job_id in ids]
    facts = ask(client, [("HMGET", keyspace.job(name), "status", "data") for name in names])
    return [(status, _readable(data) if data else None) for status, data in facts]


def _minutes(jobs: int, slots: int, route: Health | None, unknown: list[str]) -> float | None:
    if not jobs:
        return 0.0
    if not slots or route is None:
        return None
    if route.p50_ms is None:
        unknown.append(f"time: {route.route} has answered no call yet")
        return None
    return (_ramped_seconds(jobs, slots * 1000 / route.p50_ms) + route.p50_ms / 1000) / 60


def _ramped_seconds(jobs: int, rate: float) -> float:
    """Seconds for `jobs` at `rate` jobs a second. After a resume the rate grows from RAMP_FIRST_SHARE of it to the whole
    (worker/control/admission.py)."""
    first, growth = RAMP_FIRST_SHARE, (1 - RAMP_FIRST_SHARE) / RAMP_SECONDS
    ramping = rate * RAMP_SECONDS * (1 + first) / 2
    if jobs >= ramping:
        return RAMP_SECONDS + (jobs - ramping) / rate
    return (math.sqrt(first**2 + 2 * growth * jobs / rate) - first) / growth


def _dollars(
    client: redis.Redis,
    waiting: Mapping[str, tuple[int, list[LLMJob]]],
    route: dict[str, Any] | None,
    unknown: list[str],
) -> float | None:
    """US dollars: for each queue, its number of jobs times the mean cost of its sample. None if unknown; adds the
    reason."""
    if not any(length for length, _ in waiting.values()):
        return 0.0
    if route is None:
        if not unknown:
            unknown.append("cost: no route is known that would serve them")
        return None
    listed = route["price"]
    price = Price(**listed) if listed else public_price(route["provider"], route["model"])
    if price is None:
        fix = "give the route a `price` in routes.json, or `pip install genai-prices`"
        unknown.append(f"cost: no price is known for {route['route']} — {fix}")
        return None
    written = _mean_output(client, list(waiting))
    if written is None:
        unknown.append(f"cost: no job is done yet, so {ASSUMED_OUTPUT_TOKENS} tokens an answer are assumed")
        written = ASSUMED_OUTPUT_TOKENS
    total = 0.0
    for queue, (length, sample) in waiting.items():
        if length and not sample:
            unknown.append(f"cost: no job of {queue} could be read")
            return None
        each = (estimated(job.body) * price.input + _output(job, written) * price.output for job in sample)
        total += length * sum(each) / max(1, len(sample)) / PER_MILLION
    return total


def _output(job: LLMJob, usual: float) -> float:
    limit = longest_answer(job.body)
    return usual if limit is None else min(usual, limit)


def _readable(data: bytes) -> LLMJob | None:
    try:
        return decode_job(data)
    except (InvalidJob, ForeignJob, NewerSchema):
        return None


def _mean_output(client: redis.Redis, queues: Sequence[str]) -> float | None:
    """Mean output tokens of the latest answers; None without any."""
    pages = ask(client, [("ZRANGE", keyspace.finished(name), 0, SAMPLE - 1, "REV") for name in queues])
    ids = [job_id.decode() for page in pages for job_id in page]
    replies = ask(client, [command for job_id in ids for command in result_commands(job_id)])
    results = [result_of(job_id, replies[2 * i], replies[2 * i + 1]) for i, job_id in enumerate(ids)]
    counts = [count for result in results if (count := _output_tokens(result)) is not None]
    return sum(counts) / len(counts) if counts else None


def _output_tokens(result: JobResult | None) -> int | None:
    if result is None or result.status is not JobStatus.DONE:
        return None
    count = (result.usage or {}).get("completion_tokens")
    return count if isinstance(count, int) else None
