"""What would happen on a resume: how many jobs start, about what they cost, and how long the drain takes.

An estimate from samples: queued jobs for their input, done ones for their output and their routes' latest calls for the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from producer import keyspace
from producer.errors import InvalidJob
from producer.job import ForeignJob, JobResult, JobStatus, LLMJob, NewerSchema, decode_job
from producer.results import result_commands, result_of
from producer.scripts import ask
from worker import fleet, health
from worker.gate import RAMP_SECONDS
from worker.pause import Scope, paused
from worker.tokens import estimated

SAMPLE = 200  # jobs looked into
ASSUMED_OUTPUT_TOKENS = 400  # while no job is done yet


@dataclass(frozen=True)
class Backlog:
    """`dollars` and `minutes` None: not known, for the reason in `unknown`. `still_paused`: flags that stay set."""

    jobs: int
    dollars: float | None
    minutes: float | None
    slots: int
    still_paused: list[str]
    unknown: list[str]

    def __str__(self) -> str:
        cost = f"about ${self.dollars:.2f}" if self.dollars is not None else "cost unknown"
        time = f"about {self.minutes:.1f} minutes on {self.slots} slots" if self.minutes is not None else "time unknown"
        lines = [f"{self.jobs} jobs would start: {cost}, {time}"]
        lines += [f"  {why}" for why in self.unknown]
        lines += [f"  stays paused: {flag}" for flag in self.still_paused]
        return "\n".join(lines)


def estimate(client: redis.Redis, scope: Scope, default_queue: str) -> Backlog:
    """The backlog that a resume of `scope` would let go."""
    (known,) = ask(client, [("SMEMBERS", keyspace.QUEUES)])
    names = sorted({key.decode().removeprefix(keyspace.QUEUE) for key in known} | {default_queue})
    flags = paused(client, names)
    stays = [flag for flag in flags if flag.scope.flag != scope.flag or flag.who == "rq suspend"]
    if scope.queue is None and scope.provider is None:
        stays = [flag for flag in stays if flag.provider is None or flag.who != "budget"]
    freed = [name for name in names if scope.queue in (None, name)]
    freed = [name for name in freed if not any(flag.concerns(name) for flag in stays)]
    lengths = ask(client, [("LLEN", keyspace.queue(name)) for name in freed])
    lengths += ask(client, [("ZCARD", keyspace.scheduled(name)) for name in freed])
    jobs = sum(lengths)
    told = fleet.views(client)
    slots = sum(view["slots"] for view in told)
    routes = {route["route"]: route for view in told for route in view["routes"] if "left_out" not in route}
    unknown: list[str] = []
    if not slots:
        unknown.append("no worker is running: start `failover-worker`")
    route = _likely(client, routes)
    minutes = _minutes(client, jobs, slots, route, unknown)
    dollars = _dollars(client, freed, jobs, routes.get(route or ""), unknown)
    return Backlog(jobs, dollars, minutes, slots, [str(flag) for flag in stays], unknown)


def _likely(client: redis.Redis, routes: dict[str, Any]) -> str | None:
    """The first route that is not open: most jobs go there."""
    standing = health.of_routes(client, list(routes))
    closed = [name for name in routes if standing[name].breaker == "closed" and not standing[name].rests_for]
    return next(iter([*closed, *routes]), None)


def _minutes(client: redis.Redis, jobs: int, slots: int, route: str | None, unknown: list[str]) -> float | None:
    if not jobs:
        return 0.0
    if not slots or route is None:
        return None
    p50 = health.of_routes(client, [route])[route].p50_ms
    if p50 is None:
        unknown.append(f"time: {route} has answered no call yet")
        return None
    working = jobs * p50 / 1000 / slots
    return (working + min(RAMP_SECONDS / 2, working)) / 60


def _dollars(
    client: redis.Redis, queues: Sequence[str], jobs: int, route: dict[str, Any] | None, unknown: list[str]
) -> float | None:
    if not jobs:
        return 0.0
    if route is None:
        return None
    price = route["price"] or _public_price(route["provider"], route["model"])
    if price is None:
        mend = "give the route a `price` in routes.json, or install failover-worker[prices]"
        unknown.append(f"cost: no price is known for {route['route']} — {mend}")
        return None
    sample = [job for name in queues for job in _sample(client, name)]
    if not sample:
        return None
    written = _written(client, queues)
    if written is None:
        unknown.append(f"cost: no job is done yet, so {ASSUMED_OUTPUT_TOKENS} tokens an answer are assumed")
        written = ASSUMED_OUTPUT_TOKENS
    cost = sum(estimated(job.body) * price["input"] + _output(job, written) * price["output"] for job in sample)
    return jobs * cost / len(sample) / 1e6


def _output(job: LLMJob, usual: float) -> float:
    limits = [limit for name in ("max_tokens", "max_completion_tokens") if isinstance(limit := job.body.get(name), int)]
    return min([usual, *limits])


def _public_price(provider: str, model: str) -> dict[str, float] | None:
    """US dollars for a million tokens by genai-prices, where it is installed and knows the model."""
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None
    million = 1_000_000
    try:
        price = calc_price(Usage(input_tokens=million, output_tokens=million), model, provider_id=provider)
    except LookupError:
        return None
    return {"input": float(price.input_price), "output": float(price.output_price)}


def _sample(client: redis.Redis, queue: str) -> list[LLMJob]:
    """Queued jobs, spread over the queue."""
    (length,) = ask(client, [("LLEN", keyspace.queue(queue))])
    places = sorted({place * length // SAMPLE for place in range(SAMPLE)} if length else ())
    ids = ask(client, [("LINDEX", keyspace.queue(queue), place) for place in places])
    data = ask(client, [("HGET", keyspace.job(job_id.decode()), "data") for job_id in ids if job_id])
    return [job for raw in data if raw and (job := _readable(raw)) is not None]


def _readable(data: bytes) -> LLMJob | None:
    try:
        return decode_job(data)
    except (InvalidJob, ForeignJob, NewerSchema):
        return None


def _written(client: redis.Redis, queues: Sequence[str]) -> float | None:
    """Output tokens of the latest answers, on average."""
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
