"""GET /healthz, /readyz, /metrics: whether the process is alive, whether it can accept jobs, and metrics of the status."""

from __future__ import annotations

from collections.abc import Iterable

import redis
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel
from redis.exceptions import RedisError

from ops.reports import status
from ops.web.seldom import at_most_every
from producer.connection import check_safe
from producer.intake import errors
from producer.redis_server.memory import memory
from worker.control import worker_registry
from worker.control.pause import holding
from worker.humanize import many
from worker.money import budget_state
from worker.money.caps import Budgets
from worker.queue import lost
from worker.reports import statement

LOOK_SECONDS = 1.0
BREAKER_STATES = ("closed", "half-open", "open")


class Health(BaseModel):
    status: str = "ok"


class Readiness(BaseModel):
    """`reasons`: why no job can be accepted. `notes`: why accepted jobs wait."""

    ready: bool
    reasons: list[str]
    notes: list[str]


def health(client: redis.Redis, queue: str, registry: CollectorRegistry, *, unsafe_redis: bool) -> APIRouter:
    router = APIRouter(tags=["health"])
    # it needs no token, so many requests at once share one check of Redis
    look = at_most_every(LOOK_SECONDS, lambda: readiness(client, queue, unsafe_redis=unsafe_redis))
    registry.register(_Everything(client, queue))

    @router.get("/healthz", response_model=Health)
    async def healthz() -> Health:
        """The process is alive. It does not call Redis: a restart would not end an outage of Redis."""
        return Health()

    @router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
    def readyz() -> Response:
        """Whether jobs can be accepted, and if not, why."""
        found = look()
        return JSONResponse(found.model_dump(), 200 if found.ready else 503)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(401, 403, 503)},
    )
    def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router


def readiness(client: redis.Redis, queue: str, *, unsafe_redis: bool) -> Readiness:
    try:
        client.ping()
        dangers = [f"redis: {danger}" for danger in check_safe(client)]
        reasons, notes = ([], dangers) if unsafe_redis else (dangers, [])
        if (found := memory(client)) and found.is_full:
            reasons.append(f"redis: it is full and accepts no jobs: {found}")
        if not worker_registry.alive(client, queue):
            notes.append("no worker is running")
        if missing := lost.count(client):
            notes.append(f"{many(missing, 'job')} lost: failover dlq list --lost")
        if holding(client, queue):
            notes.append("paused")
    except RedisError as error:
        return Readiness(ready=False, reasons=[f"redis: {type(error).__name__}"], notes=[])
    return Readiness(ready=not reasons, reasons=reasons, notes=notes)


class _Everything:
    """The facts of `failover status` as gauges, read at each scrape."""

    def __init__(self, client: redis.Redis, queue: str) -> None:
        self._client, self._queue = client, queue

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # the registration reads nothing

    def collect(self) -> Iterable[GaugeMetricFamily]:
        found = status.gather(self._client, self._queue)
        yield from _queues(found.queues)
        workers = GaugeMetricFamily("failover_workers", "Workers with a heartbeat.")
        workers.add_metric([], sum(worker.seen_seconds is not None for worker in found.workers))
        yield workers
        yield GaugeMetricFamily("failover_lost_jobs", "Jobs that left the queue without an outcome.", found.lost)
        flags = GaugeMetricFamily("failover_paused", "1 for every pause flag that is set.", labels=["scope", "name"])
        for flag in found.paused:
            named = {"route": flag.route, "provider": flag.provider, "queue": flag.queue}
            kind, name = next(((kind, name) for kind, name in named.items() if name is not None), ("everything", ""))
            flags.add_metric([kind, name], 1)
        yield flags
        spent = GaugeMetricFamily(
            "failover_budget_used_percent", "Of a provider's budget.", labels=["provider", "budget"]
        )
        for budget in found.budgets:
            spent.add_metric([budget.provider, budget.budget], budget.percent)
        yield spent
        yield from self._money()
        yield from _routes(found.routes)

    def _money(self) -> Iterable[GaugeMetricFamily]:
        """The money of this month by our own ledger: the largest scopes and those with a cap; all others as one for each
        kind, `rest:tenant`. Users are too many for a metric."""
        usd = GaugeMetricFamily("failover_spent_usd", "Of this month, by scope.", labels=["scope", "state"])
        standing = budget_state.standing(self._client)
        sums = {scope: each for scope, each in statement.sums(self._client).items() if not scope.startswith("user:")}
        lines, rest = statement.shortened(statement.balances(sums, Budgets(), standing, {}), standing.caps)
        for line in [*lines, *(together for _, together in rest.values())]:
            for state, amount in (
                ("spent", line.spent_usd),
                ("ambiguous", line.ambiguous_usd),
                ("held", line.held_usd),
            ):
                usd.add_metric([line.scope, state], amount)
        alert_thresholds = GaugeMetricFamily(
            "failover_budget_step_percent", "The alert threshold that a scope has reached.", labels=["scope"]
        )
        full = GaugeMetricFamily("failover_budget_full", "1 while jobs wait for a scope's hard cap.", labels=["scope"])
        for line in lines:
            if each := standing.cap_statuses.get(line.scope):
                alert_thresholds.add_metric([line.scope], each.step)
                full.add_metric([line.scope], each.full)
        return (usd, alert_thresholds, full)


def _queues(queues: Iterable[status.QueueStatus]) -> Iterable[GaugeMetricFamily]:
    jobs = GaugeMetricFamily("failover_queue_jobs", "Jobs by state.", labels=["queue", "state"])
    oldest = GaugeMetricFamily("failover_queue_oldest_seconds", "Age of the next queued job.", labels=["queue"])
    for queue in queues:
        for state in ("queued", "in_flight", "waiting", "late", "dead", "done"):
            jobs.add_metric([queue.queue, state], getattr(queue, state))
        oldest.add_metric([queue.queue], queue.oldest_seconds or 0)
    return (jobs, oldest)


def _routes(routes: Iterable[status.RouteStatus]) -> Iterable[GaugeMetricFamily]:
    breakers = GaugeMetricFamily("failover_route_breaker", "1 for the state of its breaker.", labels=["route", "state"])
    errors = GaugeMetricFamily("failover_route_error_ratio", "Of its latest 200 calls.", labels=["route"])
    seconds = GaugeMetricFamily("failover_route_seconds", "Of its latest 200 calls.", labels=["route", "quantile"])
    for route in routes:
        if (known := route.health) is None:
            continue
        for state in BREAKER_STATES:
            breakers.add_metric([route.route, state], known.breaker == state)
        if known.error_rate is not None:
            errors.add_metric([route.route], known.error_rate)
        for quantile, ms in (("0.5", known.p50_ms), ("0.95", known.p95_ms)):
            if ms is not None:
                seconds.add_metric([route.route, quantile], ms / 1000)
    return (breakers, errors, seconds)
