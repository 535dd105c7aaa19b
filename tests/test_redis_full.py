"""A full Redis accepts no new job. What it has accepted ends, every reading command works, and people are told before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ops.local import embedded
from ops.reports import status
from ops.simulators import provider
from producer import Producer, keyspace
from producer.connection import connect
from producer.errors import RedisFull
from producer.job import DeadReason, JobStatus
from producer.policy import Policies
from producer.redis_server.memory import memory
from producer.waiting import WaitReason
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.transitions import Q, claim, done, expire_leases, send, settle, where
from tests.support.web import served
from tests.support.workshop import Workshop
from worker.control.pause import pause, resume
from worker.notify.conditions import _memory
from worker.notify.incidents import Incidents
from worker.queue import transitions
from worker.queue.outcomes import Dead, Outcome, Park, Released, Retry
from worker.queue.transitions import Settled
from worker.queue.waiting import Waiting

DEAD = Dead(DeadReason.EXHAUSTED, "no route", (), 100)


@pytest.fixture
def apart(tmp_path: Path, providers: provider.Control) -> Iterator[Workshop]:
    """A workshop with a server of its own."""
    with embedded.running(tmp_path / "valkey") as url:
        workshop = Workshop(tmp_path, url, providers)
        workshop.routes(hot=[{"upstream": "hot"}])
        yield workshop
        for process in workshop.processes:
            process.kill()
            process.wait()


@pytest.fixture
def client(apart: Workshop) -> Iterator[redis.Redis]:
    with connect(apart.url) as client:
        yield client


def fill(client: redis.Redis, percent: float) -> None:
    """Set maxmemory so that so much of it is used."""
    client.config_set("maxmemory", "0")
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 100 / percent))
    client.delete(keyspace.MEMORY)  # what an enqueue read before


def test_no_job_is_accepted_from_95_percent_on(client: redis.Redis, policies: Policies) -> None:
    producer = Producer(client, policies)
    client.set("ballast", "x" * 20_000_000)
    fill(client, 90)
    first = producer.enqueue(chat("a", idempotency_key="k"))
    fill(client, 97)
    with pytest.raises(RedisFull, match=r"9[67]% of maxmemory is used"):
        producer.enqueue(chat("b"))
    assert producer.enqueue(chat("a", idempotency_key="k")) == first
    assert client.llen(keyspace.queue(Q)) == 1
    fill(client, 90)
    producer.enqueue(chat("b"))


@pytest.mark.parametrize(
    ("outcome", "place"),
    [
        (done("one"), "finished"),
        (DEAD, "failed"),
        (Retry(0, "again", ()), "scheduled"),
        (Park(0, Waiting(WaitReason.ROUTE), ()), "scheduled"),
        (Released(()), "queue"),
    ],
)
def test_every_transition_of_an_accepted_job_works(
    outcome: Outcome, place: str, client: redis.Redis, policies: Policies
) -> None:
    producer = Producer(client, policies)
    for job_id in ("one", "two"):
        producer.enqueue(chat(), job_id=job_id)
    fill(client, 200)
    pause(client, who="ann", why="test")
    assert claim(client, token="paused") == ()
    assert len(resume(client, who="ann")) == 1
    (held,) = claim(client)
    assert settle(client, held, outcome) is Settled.COMMITTED
    assert where(client, "one") == [place]
    if place == "scheduled":
        assert send(client, transitions.promote(Q)) == 1
    if place == "failed":
        requeued, _, _ = send(client, transitions.requeue(Q, ["one"], token="r", who="ann", generations=9))
        assert requeued == [b"one"]
    claim(client, 9, token="others")
    fill(client, 50)
    expire_leases(client)  # by a plain write
    fill(client, 200)
    for call in (transitions.reap(Q, 1 << 60), transitions.expire(Q), transitions.audit(Q, ["two"])):
        send(client, call)
    producer.cancel("two", who="ann")
    found = status.gather(client, Q)
    assert found.memory_percent is not None and found.memory_percent >= 200


def test_people_are_told_jobs_drain_and_everything_can_be_read(apart: Workshop, client: redis.Redis) -> None:
    (apart.folder / "policies").mkdir()
    policies = apart.policy(attempts=3)
    (apart.folder / "policies" / "oncall.yaml").write_text("hold_seconds: 0\nsteady_seconds: 0\n")
    producer = Producer(client, policies)
    job_ids = [receipt.job_id for receipt in producer.enqueue_many(chat(str(n)) for n in range(50))]
    fill(client, 200)
    apart.worker()
    until(lambda: all(producer.ended(job_ids)), "all jobs end")
    assert {result.status for result in producer.fetch_many(job_ids) if result} == {JobStatus.DONE}
    incidents = Incidents(client)
    title = "Redis is full: no new job is accepted: 95% or more of its memory is used"
    until(lambda: [each.title for each in incidents.unsettled()] == [title], "people are told")
    (told,) = incidents.unsettled()
    assert told.commands == ("failover messages show no_new_jobs --tenant NAME",)
    for command in (("status",), ("resume", "--dry-run"), ("dlq", "stats")):
        ended = apart.run("failover", *command)
        assert ended.returncode == 0, ended.stderr
    refused = apart.run("failover", "submit", "--prompt", "x")
    assert refused.returncode == 3 and "Redis is full and accepts no new job" in refused.stderr
    with served(apart) as web:
        answer = web.post("/jobs", json={"body": chat().body})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
        assert answer.json()["error"]["code"] == "redis_full"
        assert web.get("/metrics").status_code == 200
        assert "it is full" in json.dumps(web.get("/readyz").json())
        fill(client, 50)
        assert until(lambda: web.post("/jobs", json={"body": chat().body}).status_code == 202, "jobs are accepted")
    until(lambda: not [each for each in incidents.unsettled() if each.resolved_ms is None], "it is over")


def test_a_step_of_memory_is_a_mark_and_below_the_first_nothing_is_told(client: redis.Redis) -> None:
    assert memory(client) is None
    for percent, marks in ((70, []), (85, [80]), (93, [80, 90]), (120, [80, 90, 95])):
        fill(client, percent)
        told = [list(condition.marks) for condition in _memory(memory(client))]
        assert told == ([[f"{step}% or more of its memory is used" for step in marks]] if marks else [])
