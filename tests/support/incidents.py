"""Incidents for tests: a policy by which people are told within moments, workers that probe soon, jobs that die."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis

from ops.local.session import own_worker
from producer import Producer, keyspace
from producer.job import DeadReason
from producer.policy import load_policies
from producer.scripts import ask
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.transitions import Q
from tests.support.workshop import Workshop
from worker.breakers.local import Rules
from worker.configuration import Configuration
from worker.notify.incidents import Incident, Incidents
from worker.notify.kinds import Kind
from worker.notify.settings import load_settings
from worker.queue import transitions
from worker.queue.claim import Claim
from worker.queue.outcomes import Dead
from worker.routes.route import load_routes

SOON = {
    "on_call": [{"name": "Kira", "contact": "@kira"}],
    "tells_clients": {"default": "Dana"},
    "late_minutes": 0.02,
    "quiet_minutes": 0.05,
    "edit_seconds": 0.2,
    "thread_seconds": 0.2,
    "hold_seconds": 0.2,
    "steady_seconds": 1,
    "no_worker_seconds": 0.5,
}


def on_call(workshop: Workshop, *, promised: float = 3600, **fields: Any) -> None:
    """A policy by which people are told within moments. `promised`: seconds to the answer."""
    workshop.policy(max_time_to_answer_seconds=promised)
    text = json.dumps({"version": 1, **SOON, **fields})
    (Path(workshop.environment["POLICIES_DIR"]) / "oncall.yaml").write_text(text)


@contextlib.contextmanager
def quick_workers(workshop: Workshop, count: int, environment: dict[str, str]) -> Iterator[None]:
    """Workers of this process, whose breakers probe after a second."""
    environment = {**workshop.environment, **environment}
    routes, policies, settings = load_routes(environment), load_policies(environment), load_settings(environment)
    rules = Rules(cooldown_seconds=1, longest_cooldown_seconds=1)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(
                own_worker(workshop.url, Configuration(policies, routes), rules=rules, settings=settings)
            )
        yield


def bury(client: redis.Redis, producer: Producer, count: int, tenants: int = 1) -> list[str]:
    """Dead letters while no worker runs, by the transitions that a worker uses."""
    jobs = [chat(str(n), tenant_id=f"tenant{n % tenants}") for n in range(count)]
    ids = [receipt.job_id for receipt in producer.enqueue_many(jobs)]
    for _ in range(-(-count // 200)):
        claims, _ = transitions.claimed(ask(client, [transitions.claim(uuid4().hex, 200, "w", [Q])])[0])
        for claim in claims:
            ask(client, [_dead(claim, "no")])
    assert client.zcard(keyspace.failed(Q)) >= count
    return ids


def die(workshop: Workshop, producer: Producer, count: int, tenants: int = 1) -> list[str]:
    """Dead letters of a worker that runs: the provider of the map refuses them."""
    workshop.providers.behave("a", status=400)
    jobs = [chat(str(n), tenant_id=f"tenant{n % tenants}") for n in range(count)]
    ids = [receipt.job_id for receipt in producer.enqueue_many(jobs)]
    until(lambda: all(producer.ended(ids)), "all are dead")
    workshop.providers.behave("a")
    return ids


def _dead(claim: Claim, detail: str) -> Any:
    outcome = Dead(DeadReason.REJECTED, detail, (), 1000)
    return transitions.settle(claim, outcome, worker_name="w", attempts=1, run_ms=1)


def incidents(client: redis.Redis, kind: Kind) -> list[Incident]:
    return [incident for incident in Incidents(client).since(0) if incident.kind is kind]


def over(client: redis.Redis, kind: Kind) -> list[Incident]:
    return [incident for incident in incidents(client, kind) if incident.resolved_ms is not None]
