"""Nothing fails after the write: a script that is refused has changed nothing, and a message to others never fails it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from producer import Producer, ServiceUnavailable, keyspace
from producer.connection import connect
from producer.job import DeadReason
from producer.policy import Policies
from producer.scripts import run
from producer.waiting import WaitReason
from tests.support.jobs import chat
from tests.support.transitions import Q, claim, done, expire_leases, send, settle, where
from worker.control.pause import pause, resume
from worker.queue import transitions
from worker.queue.outcomes import Dead, Outcome, Park, Released, Retry
from worker.queue.transitions import Settled
from worker.queue.waiting import Waiting

DEAD = Dead(DeadReason.EXHAUSTED, "no route", (), 100)


@pytest.fixture
def no_channels(url: str, client: redis.Redis) -> Iterator[redis.Redis]:
    """A client of a user that may do everything, but has no channels: Redis 7's default for a new user."""
    run(client, [("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "resetchannels")])
    with connect(f"{url}?username=app&password=secret") as restricted:
        with pytest.raises(redis.exceptions.NoPermissionError):
            restricted.publish(keyspace.WAKE, "x")
        yield restricted
    client.acl_deluser("app")


def test_a_user_without_channels_does_every_transition_once(no_channels: redis.Redis, policies: Policies) -> None:
    client, producer = no_channels, Producer(no_channels, policies)
    job_id = producer.enqueue(chat("x", idempotency_key="k"))
    assert producer.enqueue(chat("x", idempotency_key="k")) == job_id
    assert client.llen(keyspace.queue(Q)) == 1
    pause(client, who="ann", why="test")
    assert claim(client, token="paused") == ()
    assert len(resume(client, who="ann")) == 1
    (held,) = claim(client)
    assert settle(client, held, Released(())) is Settled.COMMITTED
    (held,) = claim(client, token="t2")
    expire_leases(client)
    ((requeued, _),) = run(client, [transitions.reap(Q, 1 << 60)])
    assert requeued == [job_id.encode()]
    (held,) = claim(client, token="t3")
    assert settle(client, held, Retry(0, "again", ())) is Settled.COMMITTED
    assert send(client, transitions.promote(Q)) == 1
    (held,) = claim(client, token="t4")
    assert settle(client, held, DEAD) is Settled.COMMITTED
    assert send(client, transitions.requeue(Q, [job_id], token="r", who="ann", generations=9))[0] == [job_id.encode()]
    (held,) = claim(client, token="t5")
    assert settle(client, held, done(job_id)) is Settled.COMMITTED
    assert where(client, job_id) == ["finished"]
    assert producer.fetch(job_id).text == "answer"


@pytest.mark.parametrize(
    "key",
    [
        keyspace.queue(Q),
        keyspace.QUEUES,
        keyspace.accepted(Q),
        keyspace.promised(Q),
        keyspace.stopped(Q),
        keyspace.PAUSE,
    ],
)
def test_a_refused_enqueue_leaves_no_job(key: str, client: redis.Redis, producer: Producer) -> None:
    client.hset(key, "a", "b") if key != keyspace.stopped(Q) else client.set(key, "b")
    with pytest.raises(ServiceUnavailable, match="wrong type"):
        producer.enqueue(chat("x", idempotency_key="k"), job_id="one")
    assert not client.exists(keyspace.job("one"))
    client.delete(key)
    assert producer.enqueue(chat("x", idempotency_key="k"), job_id="one") == "one"
    assert where(client, "one") == ["queue"]


@pytest.mark.parametrize(
    ("outcome", "key"),
    [
        (done("one"), keyspace.finished(Q)),
        (done("one"), keyspace.accepted(Q)),
        (DEAD, keyspace.failed(Q)),
        (Retry(1, "again", ()), keyspace.scheduled(Q)),
        (Park(1, Waiting(WaitReason.ROUTE), ()), keyspace.scheduled(Q)),
        (Released(()), keyspace.queue(Q)),
        (Released(()), keyspace.wip(Q)),
    ],
)
def test_a_refused_outcome_keeps_the_lease(outcome: Outcome, key: str, client: redis.Redis, producer: Producer) -> None:
    producer.enqueue(chat(), job_id="one")
    (held,) = claim(client)
    saved = client.dump(key)
    client.delete(key)
    client.set(key, "of another tool")
    with pytest.raises(redis.exceptions.ResponseError, match=f"WRONGTYPE.*{key}|{key}.*another tool"):
        settle(client, held, outcome)
    client.delete(key)
    if saved:
        client.restore(key, 0, saved)
    assert where(client, "one") == ["leased"]
    assert settle(client, held, outcome) is Settled.COMMITTED


def test_an_outcome_is_written_although_its_counts_cannot_be(client: redis.Redis, producer: Producer) -> None:
    producer.enqueue(chat(), job_id="one")
    (held,) = claim(client)
    for key in ("failover:news:ai-tasks", "failover:news:ai-tasks:first", "failover:subscribers"):
        client.set(key, "of another tool")
    client.hset(keyspace.worker("w1"), "failed_job_count", "many")
    assert settle(client, held, DEAD) is Settled.COMMITTED
    assert where(client, "one") == ["failed"]
