"""Dead letters: indexes, requeue exactly once, a human's answer, discard, cancel, and the audit."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import Job

from producer import Producer, UnknownJob, UsageError, keyspace
from producer.errors import JobEnded
from producer.job import DeadReason, JobStatus
from producer.scripts import ask
from producer.trail import Attempt
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.replies import texts
from tests.support.transitions import Q, claim, done, expire_leases, send, settle, where
from tests.support.workshop import Workshop
from worker.queue import dead_letters, transitions
from worker.queue.dead_letters import Filters
from worker.queue.outcomes import Dead, Released, Retry
from worker.queue.transitions import Settled


def bury(
    producer: Producer,
    count: int = 1,
    *,
    tenant: str = "acme",
    reason: DeadReason = DeadReason.EXHAUSTED,
    route: str = "r",
) -> list[str]:
    """Dead letters, the way a worker makes them."""
    client = producer.client
    job_ids = [r.job_id for r in producer.enqueue_many(chat(f"{tenant}{n}", tenant_id=tenant) for n in range(count))]
    trail = [Attempt(execution=1, route=route, tier="hot", outcome="server_error", status=500)]
    for held in claim(client, count, token=job_ids[0]):
        assert settle(client, held, Dead(reason, "down", trail, 1000)) is Settled.COMMITTED
    return job_ids


def requeue(client: redis.Redis, job_ids: list[str], *, force: bool = False) -> tuple[int, int, int]:
    done = dead_letters.requeue(client, Q, iter([job_ids]), who="me", force=force)
    return done.requeued, done.refused, done.gone


def all_ids(client: redis.Redis, filters: Filters, **options: bool) -> list[str]:
    until_ms = dead_letters.now_ms(client)
    return [
        job_id for page in dead_letters.pages(client, Q, filters, until_ms=until_ms, **options) for job_id, _ in page
    ]


def test_letters_are_found_by_reason_tenant_route_and_age(producer: Producer, client: redis.Redis) -> None:
    acme = bury(producer, 3)
    other = bury(producer, 2, tenant="other", reason=DeadReason.REJECTED, route="s")
    for age, job_id in enumerate(reversed(acme + other)):  # a millisecond each, so that their order is certain
        for key in client.scan_iter(f"{keyspace.dead(Q)}*", _type="zset"):
            client.zincrby(key, -age, job_id) if client.zscore(key, job_id) else None
    assert all_ids(client, Filters()) == acme + other
    assert all_ids(client, Filters(), newest_first=True) == (acme + other)[::-1]
    assert all_ids(client, Filters(tenant="acme")) == acme
    assert all_ids(client, Filters(reason="rejected")) == other
    assert all_ids(client, Filters(route="s", tenant="other")) == other
    assert all_ids(client, Filters(route="s", tenant="acme")) == []
    assert all_ids(client, Filters(since_ms=dead_letters.now_ms(client) + 1)) == []
    found = dead_letters.stats(client, Q)
    assert (found.total, found.by_reason, found.by_tenant) == (
        5,
        {"exhausted": 3, "rejected": 2},
        {"acme": 3, "other": 2},
    )
    assert [letter.job_id for letter in dead_letters.listed(client, Q, Filters(), 2)] == other[::-1]


def test_pages_are_whole_when_many_died_in_the_same_millisecond(producer: Producer, client: redis.Redis) -> None:
    job_ids = bury(producer, 1300)
    client.zadd(keyspace.dead(Q), dict.fromkeys(job_ids[100:1200], 1000))
    for newest_first in (False, True):
        found = all_ids(client, Filters(), newest_first=newest_first)
        assert len(found) == len(set(found)) == 1300


def test_a_requeued_letter_has_a_new_life(producer: Producer, client: redis.Redis) -> None:
    (job_id,) = bury(producer)
    expires = int(client.hget(keyspace.job(job_id), "expires_ms") or 0)
    assert requeue(client, [job_id]) == (1, 0, 0)
    assert requeue(client, [job_id]) == (0, 0, 1)
    assert where(client, job_id) == ["queue"]
    assert client.ttl(keyspace.job(job_id)) == -1
    assert int(client.hget(keyspace.job(job_id), "expires_ms") or 0) >= expires
    result = producer.fetch(job_id)
    assert (result.status, result.attempts, result.trail, result.dead_reason) == (JobStatus.QUEUED, 0, [], None)
    assert dead_letters.stats(client, Q).by_tenant == {}
    (held,) = claim(client, token="again")
    settle(client, held, done(job_id))
    assert producer.fetch(job_id).text == "answer"
    assert client.xlen(keyspace.results(job_id)) == 1


def test_a_resend_of_a_requeue_reports_the_same_and_does_nothing(producer: Producer, client: redis.Redis) -> None:
    job_ids = bury(producer, 3)
    call = transitions.requeue(Q, job_ids, token="t", who="me", generations=3)
    first, again = send(client, call), send(client, call)
    assert first == again == [[job_id.encode() for job_id in job_ids], [], []]
    assert client.llen(keyspace.queue(Q)) == 3
    assert client.xlen(keyspace.AUDIT) == 1


def test_the_fourth_requeue_needs_force(producer: Producer, client: redis.Redis) -> None:
    (job_id,) = bury(producer)
    for generation in range(3):
        assert requeue(client, [job_id]) == (1, 0, 0)
        (held,) = claim(client, token=f"g{generation}")
        settle(client, held, Dead(DeadReason.EXHAUSTED, "still down", [], 1000))
    assert requeue(client, [job_id]) == (0, 1, 0)
    assert where(client, job_id) == ["failed"]
    assert requeue(client, [job_id], force=True) == (1, 0, 0)


def test_rq_cancels_a_running_job_and_its_worker_vanishes(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat())
    claim(client)
    Job.fetch(job_id, connection=client, serializer="json").cancel()
    expire_leases(client)
    send(client, transitions.reap(Q, 2**53))
    assert where(client, job_id) == []
    assert producer.fetch(job_id).status is JobStatus.CANCELLED


def test_letters_of_any_queue_are_found_by_id(workshop: Workshop, producer: Producer, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    job_id = Producer(client, producer.policies, queue="high").enqueue(chat())
    (held,) = claim(client, queues=("high",))
    settle(client, held, Dead(DeadReason.EXHAUSTED, "down", [], 1000))
    assert "1 dead letter would" in workshop.run("failover", "dlq", "requeue", job_id, "nope", "--dry-run").stdout
    assert "1 requeued, 1 were no" in workshop.run("failover", "dlq", "requeue", job_id, "nope").stdout
    assert client.llen(keyspace.queue("high")) == 1


def test_two_operators_requeue_each_letter_once(producer: Producer, client: redis.Redis) -> None:
    job_ids = bury(producer, 2000)
    counts: list[int] = []

    def operate() -> None:
        def batches() -> Iterator[list[str]]:
            for page in dead_letters.pages(client, Q, Filters(), until_ms=2**53):
                yield [job_id for job_id, _ in page]

        counts.append(dead_letters.requeue(client, Q, batches(), who="me").requeued)

    operators = [threading.Thread(target=operate) for _ in range(2)]
    for operator in operators:
        operator.start()
    for operator in operators:
        operator.join()
    assert sum(counts) == 2000
    queued = texts(client.lrange(keyspace.queue(Q), 0, -1))
    assert sorted(queued) == sorted(job_ids)


def test_a_humans_answer_is_the_result(producer: Producer, client: redis.Redis) -> None:
    (job_id,) = bury(producer)
    dead_letters.resolve(client, job_id, "Dear client, ...", who="va", keep_seconds=100)
    result = producer.fetch(job_id)
    assert (result.status, result.text, result.resolved_by) == (JobStatus.DONE, "Dear client, ...", "human")
    assert where(client, job_id) == ["finished"]
    assert dead_letters.stats(client, Q).total == 0
    with pytest.raises(UsageError, match="has a result"):
        dead_letters.resolve(client, job_id, "another", who="va", keep_seconds=100)
    assert producer.fetch(job_id).text == "Dear client, ..."
    with pytest.raises(UnknownJob):
        dead_letters.resolve(client, "nope", "x", who="va", keep_seconds=100)


def test_cancel_takes_a_job_out_of_wherever_it_is(producer: Producer, client: redis.Redis) -> None:
    queued, scheduled, running = (producer.enqueue(chat(str(n))) for n in range(3))
    (first,) = claim(client, token="1")
    settle(client, first, Released([]))
    held = claim(client, 3, token="2")
    settle(client, held[0], Released([]))
    settle(client, held[1], Retry(60, "why", []))
    for job_id in (queued, scheduled, running):
        producer.cancel(job_id, who="me")
        assert where(client, job_id) == []
        assert producer.fetch(job_id).status is JobStatus.CANCELLED
        producer.cancel(job_id, who="me")  # again: no harm
    assert settle(client, held[2], done(running)) is Settled.FENCED
    assert client.zcard(keyspace.accepted(Q)) == 0
    (buried,) = bury(producer)
    with pytest.raises(JobEnded, match="discard"):
        producer.cancel(buried, who="me")
    assert where(client, buried) == ["failed"]


def test_discarding_many_is_one_call_and_one_line_of_the_audit(producer: Producer, client: redis.Redis) -> None:
    buried = bury(producer, 3)
    alive = producer.enqueue(chat("alive"))
    call = transitions.discard(Q, [*buried, alive, "unknown"], token="t", who="me")
    for _ in range(2):  # its resend says the same
        (reply,) = ask(client, [call])
        assert [[name.decode() for name in names] for names in reply] == [buried, [alive, "unknown"]]
    assert dead_letters.stats(client, Q).total == 0
    assert {result.status for result in producer.fetch_many(buried) if result} == {JobStatus.CANCELLED}
    assert where(client, alive) == ["queue"]
    entries: Any = client.xrange(keyspace.AUDIT)
    ((_, entry),) = entries
    assert (entry[b"action"], entry[b"jobs"].decode().split()) == (b"discard", buried)


def test_a_running_job_that_is_cancelled_is_broken_off(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.providers.behave("hot", fault="hang")
    worker = workshop.worker()
    job_id = producer.enqueue(chat())
    until(lambda: workshop.providers.account("hot")["in_flight"] == 1, "it runs")
    assert workshop.run("failover", "job", "cancel", job_id).returncode == 0
    until(lambda: workshop.providers.account("hot")["in_flight"] == 0, "the call is broken off")
    assert producer.fetch(job_id).status is JobStatus.CANCELLED
    assert worker.poll() is None


def test_the_audit_brings_strays_back_and_leaves_the_others(producer: Producer, client: redis.Redis) -> None:
    job_ids = [producer.enqueue(chat(str(n))) for n in range(5)]
    stray, queued, _leased, scheduled, ended = job_ids
    client.lrem(keyspace.queue(Q), 0, stray)
    client.lrem(keyspace.queue(Q), 0, queued)
    for held in claim(client, 3):
        if held.job_id == scheduled:
            settle(client, held, Retry(60, "why", []))
        if held.job_id == ended:
            settle(client, held, done(ended))
    client.rpush(keyspace.queue(Q), queued)
    client.zadd(keyspace.accepted(Q), {"gone": 1})
    reply = send(client, transitions.audit(Q, [*job_ids, "gone"]))
    assert reply == [[stray.encode()], [b"gone"], [], []]
    assert [where(client, job_id) for job_id in job_ids] == [
        ["queue"],
        ["queue"],
        ["leased"],
        ["scheduled"],
        ["finished"],
    ]
    expire_leases(client)


def test_rqs_own_requeue_is_survived(producer: Producer, client: redis.Redis) -> None:
    """`rq requeue` knows nothing of our fields: the job runs all the same, is no dead letter and loses its TTL."""
    (job_id,) = bury(producer)
    Queue(Q, connection=client, serializer="json").failed_job_registry.requeue(job_id)
    assert all_ids(client, Filters()) == []
    (held,) = claim(client, token="again")
    assert client.ttl(keyspace.job(job_id)) == -1
    settle(client, held, done(job_id))
    assert producer.fetch(job_id).status is JobStatus.DONE


def test_a_requeue_killed_in_the_middle_goes_on_where_it_stopped(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    bury(producer, 1200)
    oldest_first = texts(producer.client.zrange(keyspace.dead(Q), 0, -1))
    killed = workshop.start("failover", "dlq", "requeue", "--all", "--rate", "400")
    until(lambda: producer.client.llen(keyspace.queue(Q)) >= 200, "some are requeued")
    killed.kill()
    killed.wait()
    assert producer.client.zcard(keyspace.failed(Q)) > 0
    assert workshop.run("failover", "dlq", "requeue", "--all").returncode == 0
    assert texts(producer.client.lrange(keyspace.queue(Q), 0, -1)) == oldest_first


@pytest.fixture
def letters(workshop: Workshop, producer: Producer) -> list[str]:
    workshop.routes(hot=[{"upstream": "hot"}])
    return bury(producer, 3)


def test_the_commands(workshop: Workshop, producer: Producer, letters: list[str]) -> None:
    def dlq(*command: str, stdin: bytes = b"") -> str:
        ended = workshop.run("failover", "dlq", *command, stdin=stdin)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert json.loads(dlq("stats", "--json"))["by_reason"] == {"exhausted": 3}
    assert "3 reason exhausted" in dlq("stats")
    listed = json.loads(dlq("list", "--json", "--tenant", "acme"))
    newest_first = texts(producer.client.zrange(keyspace.dead(Q), 0, -1, desc=True))
    assert [letter["job_id"] for letter in listed] == newest_first
    assert "no dead letter matches" in dlq("list", "--reason", "crashed")
    assert "dead_reason" in dlq("show", letters[0])
    assert "failover dlq requeue" in workshop.run("failover", "job", "why", letters[0]).stdout
    assert "3 dead letters would be requeued" in dlq("requeue", "--all", "--dry-run")
    assert "1 requeued" in dlq("requeue", letters[0])
    assert "done, resolved by" in dlq("resolve", letters[1], "--answer", "-", stdin=b"By hand.")
    assert producer.fetch(letters[1]).text == "By hand."
    assert "1 discarded" in dlq("discard", "--since", "1h", "--yes")
    assert json.loads(dlq("stats", "--json"))["total"] == 0
    assert workshop.run("failover", "dlq", "requeue").returncode == 2
    assert workshop.run("failover", "dlq", "requeue", "--since", "yesterday").returncode == 2


def test_a_canary_that_fails_stops_the_requeue(workshop: Workshop, producer: Producer, letters: list[str]) -> None:
    workshop.providers.behave("hot", status=400)
    workshop.worker()
    ended = workshop.run("failover", "dlq", "requeue", "--all", "--canary", "1")
    assert ended.returncode == 1 and "the canary failed" in ended.stderr
    workshop.providers.behave("hot")
    ended = workshop.run("failover", "dlq", "requeue", "--all", "--canary", "1", "--rate", "100")
    assert ended.returncode == 0, ended.stderr
    until(lambda: all(producer.ended(letters)), "all are done")
    assert {result.status for result in producer.fetch_many(letters) if result} == {JobStatus.DONE}


def test_letters_that_rqs_own_tools_requeued_are_counted_nowhere(client: redis.Redis, producer: Producer) -> None:
    first, second = bury(producer, 2)
    client.zrem(keyspace.failed(Q), first)  # as `rq requeue` does
    found = dead_letters.stats(client, Q)
    assert (found.total, found.by_reason) == (1, {"exhausted": 1})
    client.zrem(keyspace.failed(Q), second)
    client.zadd(keyspace.failed(Q), {"of-rq-itself": 1})
    assert dead_letters.stats(client, Q) == dead_letters.Stats(1, None, {"?": 1})
