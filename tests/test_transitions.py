"""The scripts on a real server: what each changes, what a resend changes (nothing), and that RQ reads it all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry, StartedJobRegistry

from producer import IdempotencyConflict, Producer, keyspace
from producer.job import DeadReason
from producer.job import JobStatus as Status
from producer.scripts import PARTS_AT_MOST, run
from producer.trail import Attempt
from producer.waiting import WaitReason
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.replies import fields
from tests.support.transitions import Q, claim, done, expire_leases, send, settle, where
from worker.queue import transitions
from worker.queue.outcomes import Dead, Park, Released, Retry
from worker.queue.transitions import Settled
from worker.queue.waiting import Waiting

WHY = Waiting(WaitReason.ROUTE, ("provider:google",), "breaker open")


def test_an_idempotency_key_gives_the_same_job_and_refuses_another_body(
    producer: Producer, client: redis.Redis
) -> None:
    first = producer.enqueue(chat("a", idempotency_key="k"))
    assert producer.enqueue(chat("a", idempotency_key="k")) == first
    with pytest.raises(IdempotencyConflict, match=first):
        producer.enqueue(chat("b", idempotency_key="k"))
    assert producer.enqueue(chat("b", idempotency_key="k", tenant_id="other")) != first
    assert client.llen(keyspace.queue(Q)) == 2


def test_enqueue_sent_again_after_a_lost_reply_makes_no_second_job(producer: Producer, client: redis.Redis) -> None:
    for _ in range(3):
        assert producer.enqueue(chat(), job_id="one") == "one"
    assert where(client, "one") == ["queue"]


def test_a_job_deleted_by_an_rq_tool_frees_its_key(producer: Producer, client: redis.Redis) -> None:
    first = producer.enqueue(chat(idempotency_key="k"))
    Job.fetch(first, connection=client, serializer="json").delete()
    assert producer.enqueue(chat(idempotency_key="k")) != first


def test_rq_reads_a_queued_job(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat("for RQ"))
    job = Job.fetch(job_id, connection=client, serializer="json")
    assert job.get_status() == JobStatus.QUEUED
    assert job.args[0]["body"]["messages"][0]["content"] == "for RQ"
    assert job.created_at == job.enqueued_at
    assert Queue(Q, connection=client, serializer="json").job_ids == [job_id]
    with pytest.raises(RuntimeError, match="failover-worker"):
        job.func(*job.args)


def test_claim_takes_in_order_and_a_resend_takes_nothing_more(producer: Producer, client: redis.Redis) -> None:
    ids = [producer.enqueue(chat(str(n))) for n in range(5)]
    first = claim(client, 3)
    assert [held.job_id for held in first] == ids[:3]
    again = claim(client, 3)
    assert again == tuple(replace(held, claimed_ms=again[0].claimed_ms) for held in first)
    assert [where(client, job_id) for job_id in ids] == [["leased"]] * 3 + [["queue"]] * 2
    assert [held.job_id for held in claim(client, 9, token="t2")] == ids[3:]
    assert producer.fetch(ids[0]).status is Status.RUNNING
    job = Job.fetch(ids[0], connection=client, serializer="json")
    assert job.get_status() == JobStatus.STARTED
    assert [execution.id for execution in job.get_executions()] == [first[0].execution_id]
    assert set(StartedJobRegistry(Q, connection=client).get_job_ids()) == set(ids)


def test_an_urgent_job_and_a_higher_queue_go_first(producer: Producer, client: redis.Redis) -> None:
    normal, urgent = producer.enqueue(chat("n")), producer.enqueue(chat("u", priority=1))
    high = Producer(client, producer.policies, queue="high").enqueue(chat("h"))
    assert [held.job_id for held in claim(client, 9, queues=("high", Q))] == [high, urgent, normal]


@pytest.mark.parametrize(
    ("flag", "value", "starts"),
    [
        ("pause_ai_tasks", "1", False),
        ("pause_ai_tasks", "yes", False),
        ("pause_ai_tasks", "0", True),
        ("pause_ai_tasks", "", True),
        (f"pause_ai_tasks:{Q}", "1", False),
        ("pause_ai_tasks:other", "1", True),
        ("rq:suspended", "1", False),
    ],
)
def test_nothing_is_claimed_while_paused(
    producer: Producer, client: redis.Redis, flag: str, value: str, starts: bool
) -> None:
    job_id = producer.enqueue(chat())
    client.set(flag, value)
    assert bool(claim(client)) is starts
    assert where(client, job_id) == ["leased" if starts else "queue"]


def test_entries_that_are_no_queued_job_leave_the_queue(producer: Producer, client: redis.Redis) -> None:
    ended = producer.enqueue(chat("a"))
    settle(client, claim(client)[0], done(ended))
    client.rpush(keyspace.queue(Q), ended, "deleted")
    client.set(keyspace.job("poison"), "not a hash")
    client.rpush(keyspace.queue(Q), "poison")
    good = producer.enqueue(chat("b"))
    assert [held.job_id for held in claim(client, 9, token="t2")] == [good]
    assert client.llen(keyspace.queue(Q)) == 0
    assert "it is no job" in fields(client.hgetall(keyspace.LOST))["poison"]


def test_a_done_job_has_one_result_and_rq_reads_it(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat(idempotency_key="k"))
    (held,) = claim(client)
    assert settle(client, held, done(job_id)) is Settled.COMMITTED
    assert settle(client, held, done(job_id, "another")) is Settled.AGAIN
    assert where(client, job_id) == ["finished"]
    assert producer.fetch(job_id).text == "answer"
    job = Job.fetch(job_id, connection=client, serializer="json")
    assert job.get_status() == JobStatus.FINISHED
    value: Any = job.return_value()
    assert value["route"] == "r"
    assert FinishedJobRegistry(Q, connection=client).get_job_ids() == [job_id]
    assert client.xlen(keyspace.results(job_id)) == 1
    assert client.zcard(keyspace.accepted(Q)) == 0
    kept = (keyspace.job(job_id), keyspace.results(job_id), keyspace.idempotency("default", "k"))
    assert [client.ttl(key) for key in kept] == [100, 100, 100]


def test_results_that_are_sent_together_are_each_stored_fenced_or_refused(
    producer: Producer, client: redis.Redis
) -> None:
    ids = [producer.enqueue(chat(str(n))) for n in range(2 * PARTS_AT_MOST)]
    held = claim(client, len(ids))
    stored = [transitions.settle(each, done(each.job_id), worker_name="w1", attempts=1, run_ms=1) for each in held]
    lost, broken = held[1], held[2]
    client.zrem(keyspace.leases(Q), lost.lease)
    client.set(keyspace.job(broken.job_id), "another tool's")
    replies = run(client, [("ECHO", "first"), *stored, ("ECHO", "last")])
    assert (replies[0], replies[-1]) == (b"first", b"last")
    assert replies[2] == b"fenced"
    assert "WRONGTYPE" in str(replies[3])
    assert {*replies[1:2], *replies[4:-1]} == {b"committed"}
    assert run(client, stored[:1]) == [b"again"]
    others = [each.job_id for each in held if each not in (lost, broken)]
    assert {producer.fetch(job_id).status for job_id in others} == {Status.DONE}
    assert client.zcard(keyspace.wip(Q)) == 2  # of the two that were not settled


def test_a_dead_letter_is_in_rqs_failed_registry_with_its_reason(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat())
    (held,) = claim(client)
    trail = [Attempt(execution=1, route="r", tier="hot", outcome="server_error", status=500)]
    buried = Dead(DeadReason.EXHAUSTED, "all is down", trail, keep_seconds=100)
    assert settle(client, held, buried) is Settled.COMMITTED
    assert settle(client, held, buried) is Settled.AGAIN
    assert where(client, job_id) == ["failed"]
    result = producer.fetch(job_id)
    assert (result.status, result.dead_reason, result.dead_detail) == (Status.DEAD, "exhausted", "all is down")
    assert result.trail == trail
    assert FailedJobRegistry(Q, connection=client).get_job_ids() == [job_id]
    latest = Job.fetch(job_id, connection=client, serializer="json").latest_result()
    assert latest is not None
    assert latest.exc_string == "exhausted: all is down"


@pytest.mark.parametrize(
    ("outcome", "status", "burned"),
    [(Retry(60.0, "why", []), Status.RETRYING, 1), (Park(60.0, WHY, []), Status.PARKED, 0)],
)
def test_a_retried_job_waits_and_comes_back_first_a_parked_one_last(
    producer: Producer, client: redis.Redis, outcome: Retry | Park, status: Status, burned: int
) -> None:
    job_id, behind = producer.enqueue(chat("a")), producer.enqueue(chat("b"))
    (held,) = claim(client)
    assert settle(client, held, outcome) is Settled.COMMITTED
    assert settle(client, held, outcome) is Settled.AGAIN
    assert where(client, job_id) == ["scheduled"]
    scheduled = ScheduledJobRegistry(Q, connection=client)  # type: ignore[no-untyped-call]  # RQ has no type for it
    assert scheduled.get_job_ids() == [job_id]
    waiting = producer.fetch(job_id)
    assert (waiting.status, waiting.waiting_for) == (status, "why" if burned else str(WHY))
    assert waiting.waiting_reason is (WaitReason.RETRY if burned else WHY.reason)
    assert send(client, transitions.promote(Q)) == 0
    client.zadd(keyspace.scheduled(Q), {job_id: 1})
    assert send(client, transitions.promote(Q)) == 1
    assert send(client, transitions.promote(Q)) == 0
    both = claim(client, 2, token="t2")
    assert [held.job_id for held in both] == ([job_id, behind] if isinstance(outcome, Retry) else [behind, job_id])
    again = both[0 if isinstance(outcome, Retry) else 1]
    assert (again.executions, again.attempts, again.run_ms) == (burned, 2, 30)


def test_promote_leaves_a_job_that_is_not_scheduled_any_more(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat())
    client.zadd(keyspace.scheduled(Q), {job_id: 1, "unknown": 1})
    assert send(client, transitions.promote(Q)) == 0
    assert where(client, job_id) == ["queue"]
    assert client.zcard(keyspace.scheduled(Q)) == 0


def test_a_released_job_returns_to_the_head_and_burns_nothing(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat("a"))
    producer.enqueue(chat("b"))
    (held,) = claim(client)
    assert settle(client, held, Released([])) is Settled.COMMITTED
    assert settle(client, held, Released([])) is Settled.AGAIN
    (again,) = claim(client, token="t2")
    assert (again.job_id, again.executions, again.crashes) == (job_id, 0, 0)


def test_the_holder_of_a_lost_lease_is_fenced(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat())
    (lost,) = claim(client)
    expire_leases(client)
    assert send(client, transitions.reap(Q, 2**53)) == [[job_id.encode()], []]
    assert send(client, transitions.extend(Q, [lost.lease])) == [lost.lease.encode()]
    assert settle(client, lost, done(job_id, "late")) is Settled.FENCED
    assert where(client, job_id) == ["queue"]
    (held,) = claim(client, token="t2")
    assert held.crashes == 1
    for outcome in (done(job_id, "late"), Retry(1, "", []), Released([]), Dead(DeadReason.EXPIRED, "", [], 60)):
        assert settle(client, lost, outcome) is Settled.FENCED
    assert settle(client, held, done(job_id, "in time")) is Settled.COMMITTED
    assert producer.fetch(job_id).text == "in time"


def test_extend_keeps_a_lease_from_the_reaper(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat())
    (held,) = claim(client)
    expire_leases(client)
    assert send(client, transitions.extend(Q, [held.lease])) == []
    assert send(client, transitions.reap(Q, 2**53)) == [[], []]
    assert where(client, job_id) == ["leased"]


def test_scripts_are_loaded_again_when_redis_forgot_them(producer: Producer, client: redis.Redis) -> None:
    producer.enqueue(chat("a"))
    client.script_flush()
    assert len(producer.enqueue_many([chat("b"), chat("c")])) == 2
    assert client.llen(keyspace.queue(Q)) == 3


def test_timestamps_are_rqs_own_format_in_any_month(client: redis.Redis) -> None:
    """The date arithmetic in clock.lua against Python's, over leap years and month ends."""
    from datetime import UTC, datetime, timedelta
    from pathlib import Path

    from rq.utils import utcformat

    text = (
        Path(keyspace.__file__).parent / "lua" / "shared" / "clock.lua"
    ).read_text() + "return iso(tonumber(ARGV[1]))"
    moment = datetime(2024, 2, 27, 23, 59, 59, 123000, tzinfo=UTC)
    for _ in range(60):
        ms = round(moment.timestamp() * 1000)
        assert client.eval(text, 0, ms).decode() == utcformat(moment)
        moment += timedelta(days=17, hours=5, seconds=1)


def test_a_new_job_wakes_a_listener_once(url: str, producer: Producer, client: redis.Redis) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as messages:  # type: ignore[no-untyped-call]  # redis-py has no type for it
        messages.subscribe(keyspace.WAKE)
        messages.get_message(timeout=1)
        producer.enqueue(chat("a"))
        producer.enqueue(chat("b"))
        heard = until(lambda: messages.get_message(timeout=0.1), "a wake-up")
        assert heard["channel"] == keyspace.WAKE.encode()
        assert messages.get_message(timeout=0.2) is None
