"""A replay and what it says: the same arrivals and the same incident with today's map, with one vendor, and without a queue."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ops.drills.replay.data import Arrival, Incident
from ops.drills.replay.model import Outcome, World
from producer.errors import UsageError
from producer.policy import JobPolicy
from worker.configuration import Configuration
from worker.humanize import money, took
from worker.routes.route import Route

BEFORE_SECONDS, AFTER_SECONDS = 900.0, 3600.0  # of traffic around the incident
END_SECONDS = 6 * 3600.0  # after it nobody waits any more
ONE_CALL = JobPolicy(executions=1, deadline_seconds=60)  # an app that calls its vendor, with the retries of an SDK


@dataclass(frozen=True)
class Column:
    """One configuration. `late`: past the promised time to answer; `saved`: answered by another provider than the first;
    `lost`: without an answer. Times in seconds, money in US dollars."""

    name: str
    jobs: int
    done: int
    late: int
    dead: dict[str, int]
    lost: int
    saved: int
    parked: int
    attempts: int
    usd: float | None
    p50: float
    p95: float
    longest: float


@dataclass(frozen=True)
class Replay:
    """The whole comparison."""

    incident: str
    what: str
    seed: int
    trace_jobs: int
    columns: list[Column]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def replayed(
    arrivals: Sequence[Arrival], name: str, incident: Incident, maps: Sequence[tuple[str, Configuration]], *, job_type: str,
    slots: int, seed: int, rate: float,
) -> Replay:  # fmt: skip
    """Compare `maps` (name, configuration), the first one also with its first vendor alone and without a queue. `rate`: how many
    times denser the arrivals come. Raises UsageError for a map without routes."""
    windows = incident.windows
    begins = min(window.seconds[0] for window in windows) - BEFORE_SECONDS
    ends = max(window.seconds[1] for window in windows) + AFTER_SECONDS
    jobs = list(_repeated(arrivals, ends - begins, rate))
    columns: list[Column] = []

    def column(title: str, routes: Sequence[Route], policy: JobPolicy, *, breakers: bool = True) -> None:
        if not routes:
            raise UsageError(f"{title}: no route can be used; `failover routes check` says why")
        world = World(routes, policy, windows, slots, seed, breakers)
        outcomes = world.run(jobs, begins, ends + END_SECONDS)
        columns.append(_column(title, outcomes, policy, routes))

    for title, configuration in maps:
        column(title, configuration.routes.routes, configuration.policies.of(job_type))
    routes, policy = maps[0][1].routes.routes, maps[0][1].policies.of(job_type)
    first = [route for route in routes if route.entry.provider == routes[0].entry.provider]
    column(f"{routes[0].entry.provider} alone", first, policy)
    promised = ONE_CALL.model_copy(update={"max_time_to_answer_seconds": policy.max_time_to_answer_seconds})
    column(f"{routes[0].entry.provider}, no queue", first[:1], promised, breakers=False)
    return Replay(name, incident.what, seed, len(jobs), columns)


def _repeated(arrivals: Sequence[Arrival], seconds: float, rate: float) -> Iterator[Arrival]:
    """The trace, again and again until the time is full."""
    length = (arrivals[-1].at + arrivals[-1].at / len(arrivals)) / rate
    for number in range(math.ceil(seconds / length)):
        for arrival in arrivals:
            if (at := number * length + arrival.at / rate) < seconds:
                yield Arrival(at, arrival.prompt_tokens, arrival.answer_tokens)


def _column(title: str, outcomes: Sequence[Outcome], policy: JobPolicy, routes: Sequence[Route]) -> Column:
    done = [each for each in outcomes if each.ended is not None and not each.dead]
    times = sorted(each.seconds for each in done)
    providers = {route.name: route.entry.provider for route in routes}
    late = sum(each.seconds > policy.max_time_to_answer_seconds for each in outcomes)
    priced = all(route.price is not None for route in routes)
    return Column(
        name=title,
        jobs=len(outcomes),
        done=len(done),
        late=late,
        dead=dict(Counter(each.dead for each in outcomes if each.dead)),
        lost=len(outcomes) - len(done),
        saved=sum(providers[each.route] != routes[0].entry.provider for each in done),
        parked=sum(each.parked > 0 for each in outcomes),
        attempts=sum(each.attempts for each in outcomes),
        usd=round(sum(each.micros for each in done) / 1e6, 6) if priced else None,
        p50=_quantile(times, 0.5),
        p95=_quantile(times, 0.95),
        longest=times[-1] if times else 0.0,
    )


def _quantile(times: Sequence[float], share: float) -> float:
    return round(times[max(0, math.ceil(share * len(times)) - 1)], 3) if times else 0.0


def lines(replay: Replay) -> Iterator[tuple[str, ...]]:
    """The comparison as rows: the first one has the names."""
    columns = replay.columns
    yield ("", *(each.name for each in columns))
    yield ("jobs", *(f"{each.jobs:,}" for each in columns))
    yield ("answered", *(f"{each.done:,}" for each in columns))
    yield ("without an answer", *(f"{each.lost:,}" for each in columns))
    yield ("later than promised", *(f"{each.late:,}" for each in columns))
    yield ("saved by another provider", *(f"{each.saved:,}" for each in columns))
    yield ("waited in the queue", *(f"{each.parked:,}" for each in columns))
    yield ("calls", *(f"{each.attempts:,}" for each in columns))
    yield ("cost", *("unknown" if each.usd is None else money(each.usd) for each in columns))
    for name in ("p50", "p95", "longest"):
        yield (f"{name} to the answer", *(took(1000 * getattr(each, name)) for each in columns))
