"""Whatever leaves the queue without an outcome is told of, listed, counted, and discarded by a person."""

from __future__ import annotations

import asyncio
import json

import pytest
import redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from producer import Producer, keyspace
from producer.connection import connect_async
from producer.errors import JobLost, UnknownJob
from producer.job import DeadReason, JobStatus
from producer.scripts import ask
from tests.support.jobs import chat, results
from tests.support.polling import until
from tests.support.replies import fields, texts
from tests.support.transitions import Q, claim, done, expire_leases, send, settle
from tests.support.workshop import Workshop
from worker.control import worker_registry
from worker.queue import audit, dead_letters, lost, transitions
from worker.queue.transitions import Settled


def damage(client: redis.Redis, deleted: str, overwritten: str, foreign: str) -> None:
    """What other tools do to three jobs."""
    client.delete(keyspace.job(deleted))
    client.set(keyspace.job(overwritten), "a string")
    client.delete(keyspace.job(foreign))
    client.hset(keyspace.job(foreign), "field", "of another tool")


def patrol(url: str) -> None:
    async def scenario() -> None:
        there = connect_async(url)
        await audit.Patrol(there, [Q]).go()
        await there.aclose()

    asyncio.run(scenario())


def whys(client: redis.Redis) -> dict[str, str]:
    return {each.job_id: each.why for each in lost.listed(client, 100)}


DAMAGE = {
    "a": "its data was deleted",
    "b": "its data was overwritten: it is a string",
    "c": "its data was overwritten: it has no status",
}


STATES = {"queued": JobStatus.QUEUED, "running": JobStatus.RUNNING, "scheduled": JobStatus.RETRYING}


@pytest.mark.parametrize("state", STATES)
def test_a_job_without_data_is_lost_in_every_state(
    producer: Producer, client: redis.Redis, url: str, state: str
) -> None:
    for name in (*DAMAGE, "good"):
        producer.enqueue(chat(name), job_id=name)
    if state != "queued":
        held = claim(client, 4)
        if state == "scheduled":
            for each in held:
                client.zrem(keyspace.leases(Q), each.lease)
                client.hset(keyspace.job(each.job_id), "status", "scheduled")
                client.zadd(keyspace.scheduled(Q), {each.job_id: 2**40})
    damage(client, *DAMAGE)
    patrol(url)
    assert whys(client) == DAMAGE
    assert lost.count(client) == 3
    assert texts(client.zrange(keyspace.accepted(Q), 0, -1)) == ["good"]
    assert producer.fetch("good").status is STATES[state]


def test_claims_outcomes_and_the_reaper_notice_it_too(producer: Producer, client: redis.Redis) -> None:
    for name in "abc":
        producer.enqueue(chat(name), job_id=name)
    client.delete(keyspace.job("a"))
    held = {each.job_id: each for each in claim(client, 9)}
    assert list(held) == ["b", "c"]
    client.delete(keyspace.job("b"), keyspace.job("c"))
    assert settle(client, held["b"], done("b")) is Settled.FENCED
    expire_leases(client)
    assert send(client, transitions.reap(Q, 2**53)) == [[], []]
    assert whys(client) == dict.fromkeys("abc", "its data was deleted")


def test_the_producer_tells_the_truth_before_and_after_it_was_noticed(
    producer: Producer, client: redis.Redis, url: str
) -> None:
    for name in DAMAGE:
        producer.enqueue(chat(name), job_id=name)
    damage(client, *DAMAGE)
    for noticed in (False, True):
        for name in DAMAGE:
            with pytest.raises(JobLost, match=DAMAGE[name] if noticed else "deleted or overwrote"):
                producer.fetch(name)
            with pytest.raises(JobLost):
                producer.cancel(name, who="me")
        patrol(url)
    with pytest.raises(UnknownJob):
        producer.fetch("never-was")


def test_the_list_is_bounded_and_a_person_empties_it(producer: Producer, client: redis.Redis) -> None:
    client.hset(
        keyspace.LOST, mapping={f"j{n}": json.dumps({"queue": Q, "why": "x", "at_ms": n}) for n in range(10_000)}
    )
    client.hset(keyspace.LOST, "j0", f"{Q}: written by an older release")
    for name in "ab":
        producer.enqueue(chat(name), job_id=name)
        client.delete(keyspace.job(name))
    assert claim(client, 9) == ()
    assert (lost.count(client), client.hlen(keyspace.LOST)) == (10_002, 10_001)
    assert [each.job_id for each in lost.listed(client, 2)] == ["j9999", "j9998"]
    assert lost.discard(client, ["j0", "unknown"], who="sam") == 1
    lost.discard(client, [], who="sam")
    assert lost.count(client) == 0
    ((_, entry),) = ask(client, [("XREVRANGE", keyspace.AUDIT, "+", "-", "COUNT", 1)])[0]
    assert fields(entry)["who"] == "sam"


def test_what_an_rq_worker_failed_is_a_dead_letter_of_ours(producer: Producer, client: redis.Redis, url: str) -> None:
    ids = [producer.enqueue(chat(str(n))) for n in range(3)]
    theirs = Queue(Q, connection=client, serializer=JSONSerializer)
    SimpleWorker([theirs], connection=client, serializer=JSONSerializer).work(burst=True, logging_level="CRITICAL")
    patrol(url)
    found = producer.fetch_many(ids)
    assert {each.dead_reason for each in found if each} == {DeadReason.FAILED_BY_RQ}
    assert dead_letters.stats(client, Q).by_reason == {"failed_by_rq": 3}
    assert dead_letters.requeue(client, Q, iter([ids]), who="me").requeued == 3
    assert len(claim(client, 9)) == 3


def test_a_job_of_another_app_is_never_touched(producer: Producer, client: redis.Redis) -> None:
    foreign = Queue("theirs", connection=client, serializer="json").enqueue("math.sqrt", 4)
    with pytest.raises(UnknownJob):
        producer.cancel(foreign.id, who="me")
    assert foreign.get_status(refresh=True) == "queued"


def test_only_our_own_workers_count(producer: Producer, client: redis.Redis) -> None:
    producer.enqueue(chat())
    for name in ("failover-worker-h-1-abc", "their-worker"):
        client.sadd(keyspace.WORKERS, keyspace.worker(name))
        client.sadd(keyspace.workers_of(Q), keyspace.worker(name))
        client.hset(keyspace.worker(name), "state", "idle")
    assert worker_registry.alive(client) == worker_registry.alive(client, Q) == 1
    (warning,) = worker_registry.strangers(client, Q)
    assert "their-worker" in warning


def test_people_are_told_of_lost_jobs(workshop: Workshop, producer: Producer, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    gone, good = producer.enqueue(chat("gone")), producer.enqueue(chat("good"))
    client.delete(keyspace.job(gone))
    worker = workshop.worker()
    assert results(producer, [good])[0].status is JobStatus.DONE
    until(lambda: [e for e in workshop.events(worker, "incident opening") if e["kind"] == "lost"], "they are told")
    assert gone in workshop.run("failover", "dlq", "list", "--lost").stdout
    assert "1 job without an outcome" in workshop.run("failover", "status").stdout
    assert "1 taken off" in workshop.run("failover", "dlq", "discard", "--lost", gone).stdout
    assert "no job is lost" in workshop.run("failover", "dlq", "list", "--lost").stdout
