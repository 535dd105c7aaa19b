"""One client is stopped while the others go on, and its waiting jobs are taken out; nothing of it is lost or charged twice."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
import redis

from producer import Producer, keyspace
from producer.job import JobStatus
from producer.waiting import WaitReason
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.replies import texts
from tests.support.transitions import Q, claim, send, settle
from tests.support.workshop import Workshop
from worker.control import pause
from worker.control.pause import Scope, paused
from worker.queue import tenant_jobs, transitions
from worker.queue.fair_queue import length_call, tenants
from worker.queue.outcomes import Park
from worker.queue.waiting import Waiting
from worker.reports import backlog

ACME = Scope(tenant="acme")


def fill(producer: Producer, tenant: str, count: int, **fields: object) -> list[str]:
    receipts = producer.enqueue_many([chat(f"{tenant} {n}", tenant_id=tenant, **fields) for n in range(count)])
    return [receipt.job_id for receipt in receipts]


def claimed(client: redis.Redis, at_most: int) -> list[str]:
    return [each.job_id for each in claim(client, at_most, token=uuid4().hex)]


def stop(client: redis.Redis, **fields: float) -> None:
    pause.pause(client, ACME, who="sam", why="a flood", seconds=fields.get("seconds"))


@pytest.mark.parametrize("first", ["acme", "globex"])
def test_a_paused_client_waits_in_order_while_the_others_go_on(
    producer: Producer, client: redis.Redis, first: str
) -> None:
    """Whether its jobs fill RQ's list or stand in a tenant queue."""
    second = "globex" if first == "acme" else "acme"
    jobs = {first: fill(producer, first, 60)}
    jobs[second] = fill(producer, second, 60)
    stop(client)
    assert claimed(client, 200) == jobs["globex"]
    jobs["acme"] += fill(producer, "acme", 5)
    late = fill(producer, "globex", 5)
    assert claimed(client, 200) == late
    assert send(client, length_call(Q))[0] == 65
    assert tenants(client, Q) == {"acme": 65}
    assert pause.resume(client, ACME, who="sam") == [ACME]
    assert claimed(client, 200) == jobs["acme"]
    assert claimed(client, 200) == []


def test_ten_thousand_jobs_of_a_paused_client_are_moved_aside_in_bounded_scripts(
    producer: Producer, client: redis.Redis
) -> None:
    fill(producer, "acme", 250)
    foreign = "a-job-of-rq-itself"
    client.hset(keyspace.job(foreign), mapping={"status": "queued", "data": b"x"})
    client.rpush(keyspace.queue(Q), foreign)  # behind all of them
    stop(client)
    messages: Any = client
    with messages.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(keyspace.WAKE)
        heard.get_message(timeout=1)  # that it is subscribed
        found = [claimed(client, 10) for _ in range(4)]
        assert found == [[], [], [foreign], []]
        for _ in range(2):  # until nothing is left to move, a worker claims again at once
            assert heard.get_message(timeout=5)["data"] == b"claim"


def test_a_pause_of_a_client_burns_no_expiry_of_its_jobs_and_gives_none_to_others(
    producer: Producer, client: redis.Redis
) -> None:
    mine, other = (
        fill(producer, "acme", 1, expires_after_seconds=50),
        fill(producer, "globex", 1, expires_after_seconds=50),
    )
    stop(client)
    _pass(client, mine + other, 40_000)
    assert send(client, transitions.expire(Q)) == []
    _pass(client, mine + other, 20_000)
    assert texts(send(client, transitions.expire(Q))) == other
    during = fill(producer, "acme", 1, expires_after_seconds=50)
    pause.resume(client, ACME, who="sam")
    client.zadd(keyspace.accepted(Q), {mine[0]: 1})  # as the next look at it finds it
    assert send(client, transitions.expire(Q)) == []
    claims = claim(client, 5, token=uuid4().hex)
    left = {each.job_id: round((each.expires_ms - each.claimed_ms) / 1000) for each in claims}
    assert left == {mine[0]: 50, during[0]: 50}


def _pass(client: redis.Redis, job_ids: list[str], ms: int) -> None:
    """Time passes: the jobs were accepted, and the pause began, so much earlier."""
    for job_id in job_ids:
        client.hincrby(keyspace.job(job_id), "expires_ms", -ms)
        client.zincrby(keyspace.accepted(Q), -ms, job_id)
    client.hincrby(keyspace.stopped_tenant("acme"), "since", -ms)


def test_a_pause_of_a_client_that_ran_out_by_itself_counts_to_its_end(producer: Producer, client: redis.Redis) -> None:
    (job,) = fill(producer, "acme", 1, expires_after_seconds=50)
    stop(client, seconds=3600)
    assert client.ttl(keyspace.paused_tenant("acme")) > 3500
    client.delete(keyspace.paused_tenant("acme"))
    client.hset(keyspace.stopped_tenant("acme"), mapping={"since": 1_000, "ends_ms": 61_000})
    (found,) = claim(client)
    assert found.job_id == job
    assert 105 < (found.expires_ms - found.claimed_ms) / 1000 < 111


def test_a_paused_client_is_told_by_status_by_the_dry_run_and_by_the_audit(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    fill(producer, "acme", 30)
    fill(producer, "globex", 30)
    done = workshop.run("failover", "pause", "--tenant", "acme", "--reason", "a flood")
    assert (done.returncode, done.stdout) == (0, "paused tenant acme; `failover resume --tenant acme` resumes it\n")
    assert "PAUSED: tenant acme, by" in workshop.run("failover", "status").stdout
    assert backlog.estimate(client, ACME, Q).jobs == 30
    dry = workshop.run("failover", "resume", "--tenant", "acme", "--dry-run", "--json")
    assert json.loads(dry.stdout)["jobs"] == 30
    resumed = workshop.run("failover", "resume", "--tenant", "acme")
    assert resumed.stdout == "resumed tenant acme\n"
    assert paused(client, [Q]) == []
    trail: Any = client.xrange(keyspace.AUDIT)
    assert [entry[b"action"] for _, entry in trail] == [b"pause", b"resume"]
    assert "is the name right?" in workshop.run("failover", "pause", "--tenant", "nobody").stderr


@pytest.mark.parametrize("first", ["acme", "globex"])
def test_the_waiting_jobs_of_a_client_are_cancelled_once_and_no_other_job(
    producer: Producer, client: redis.Redis, first: str
) -> None:
    second = "globex" if first == "acme" else "acme"
    jobs = {first: fill(producer, first, 130)}
    jobs[second] = fill(producer, second, 130)
    running, parked = claim(client, 2, token=uuid4().hex)
    settle(client, parked, Park(3600, Waiting(WaitReason.ROUTE), ()))
    waiting = tenant_jobs.waiting(client, Q, "acme")
    mine = [job for job in jobs["acme"] if job != running.job_id]
    assert sorted(waiting) == sorted(mine)
    steps: list[int] = []
    assert tenant_jobs.cancel(client, Q, "acme", waiting, who="sam", report=steps.append) == len(mine)
    assert max(steps) == tenant_jobs.CANCEL_AT_ONCE
    assert tenant_jobs.cancel(client, Q, "acme", waiting, who="kira", report=steps.append) == 0
    assert {producer.fetch(job).status for job in mine} == {JobStatus.CANCELLED}
    trail: Any = client.xrange(keyspace.AUDIT)
    entries = [entry for _, entry in trail if entry[b"action"] == b"cancel"]
    assert sorted(b" ".join(entry[b"jobs"] for entry in entries).decode().split()) == sorted(mine)
    assert tenants(client, Q) == {
        "globex": len([j for j in jobs["globex"] if j not in (running.job_id, parked.job_id)])
    }
    assert client.zcard(keyspace.accepted(Q)) == 260 - len(mine)
    assert tenant_jobs.running(client, Q, "acme") == [running.job_id] * (first == "acme")


def test_the_command_asks_once_and_says_what_it_left(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    fill(producer, "acme", 3)
    (running,) = claim(client)
    refused = workshop.run("failover", "job", "cancel", "--tenant", "acme", stdin="n\n")
    assert "cancel 2 waiting jobs of acme for good?" in refused.stdout
    assert len(tenant_jobs.waiting(client, Q, "acme")) == 2
    done = workshop.run("failover", "job", "cancel", "--tenant", "acme", "--yes")
    assert done.stdout == "2 jobs of acme cancelled\n"
    assert (
        f"1 job of it left running, to its usual end; `failover job cancel {running.job_id}` stops one" in done.stderr
    )
    assert "`failover pause --tenant acme` stops them" in done.stderr


def test_a_worker_serves_the_others_at_once_while_one_client_is_paused(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    flood = fill(producer, "acme", 2000)
    stop(client)
    workshop.worker()
    others = fill(producer, "globex", 50)
    until(lambda: all(producer.ended(others)), "the others are done")
    assert not any(producer.ended(flood))
    pause.resume(client, ACME, who="sam")
    until(lambda: any(producer.ended(flood[:50])), "and it goes on")
