"""The flags: nothing starts, running jobs end, no attempt or expiry is burned, providers close alone, the backlog drains."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
import redis

from ops import backlog
from producer import Producer, keyspace
from producer.job import JobStatus
from producer.scripts import ask
from tests.conftest import Workshop, chat, until
from tests.test_transitions import Q, claim, send
from worker import pause, transitions
from worker.pause import EVERYTHING, Scope, paused

WHO = {"who": "sam@laptop", "why": "testing"}
GOOGLE = Scope(provider="gemini")


def tick(client: redis.Redis, *providers: str) -> list[int]:
    reply: list[int] = send(client, transitions.tick([Q], providers))
    return reply


@pytest.mark.parametrize("scope", [EVERYTHING, Scope(queue="other"), GOOGLE], ids=str)
def test_a_flag_tells_who_why_since_and_until(client: redis.Redis, scope: Scope) -> None:
    pause.pause(client, scope, **WHO, seconds=3600)
    (flag,) = paused(client, [Q])
    assert (flag.scope.flag, flag.who, flag.why) == (scope.flag, "sam@laptop", "testing")
    assert flag.since is not None
    assert flag.until == flag.since + 3600
    assert 3590 < client.ttl(scope.flag) <= 3600
    assert pause.resume(client, scope, who="sam") == [Scope.of(scope.flag)]
    assert (paused(client, [Q]), pause.resume(client, scope, who="sam")) == ([], [])
    actions = [entry[b"action"] for _, entry in client.xrange(keyspace.AUDIT)]
    assert actions == [b"pause", b"resume"]


def test_a_pause_that_ran_out_or_was_deleted_by_hand_leaves_no_note_to_a_later_one(client: redis.Redis) -> None:
    pause.pause(client, **WHO)
    client.delete(keyspace.PAUSE)
    tick(client)
    client.set(keyspace.PAUSE, "1")
    (flag,) = paused(client, [Q])
    assert (flag.who, flag.why) == (None, None)


def test_a_pause_without_a_reason_takes_none_away(client: redis.Redis) -> None:
    pause.pause(client, **WHO)
    pause.pause(client, who="kira", why="")
    assert [flag.why for flag in paused(client, [Q])] == ["testing"]


def test_a_paused_provider_is_told_with_every_claim_and_stops_all_only_when_all_are_paused(
    producer: Producer, client: redis.Redis
) -> None:
    producer.enqueue(chat())
    pause.pause(client, GOOGLE, **WHO)

    def claims(*providers: str) -> tuple[int, list[int]]:
        call = transitions.claim(f"t{time.monotonic_ns()}", 5, "w1", [Q], providers)
        held, flags = transitions.claimed(send(client, call))
        return len(held), flags

    assert claims("google") == (0, [0, 1])
    assert claims("anthropic", "google") == (1, [0, 0, 1])


@pytest.mark.parametrize("scope", [EVERYTHING, Scope(queue=Q), GOOGLE], ids=str)
def test_a_pause_burns_no_expiry(producer: Producer, client: redis.Redis, scope: Scope) -> None:
    before = producer.enqueue(chat("before", expires_after_seconds=0.05))
    pause.pause(client, scope, **WHO)
    tick(client, "google")
    during = producer.enqueue(chat("during", expires_after_seconds=0.05))
    time.sleep(0.2)  # the pause outlasts what they are worth
    assert send(client, transitions.expire(Q)) == []
    pause.resume(client, scope, who="sam")
    tick(client, "google")
    taken = claim(client, 2, "t")
    assert {held.job_id for held in taken} <= {before, during}
    assert all(0 < held.expires_ms - held.claimed_ms <= 50 for held in taken)
    after = producer.enqueue(chat("after", expires_after_seconds=0.05))

    def expired() -> bool:
        return producer.fetch(after).status is JobStatus.DEAD or (send(client, transitions.expire(Q)) and False)

    until(expired, "the clock runs again")


def test_a_requeued_letter_is_worth_as_much_as_before_whatever_was_paused(
    producer: Producer, client: redis.Redis
) -> None:
    client.hset(keyspace.stopped(Q), "total", 5_000_000)
    job_id = producer.enqueue(chat(expires_after_seconds=0.01))
    until(lambda: send(client, transitions.expire(Q)), "it expires")
    (requeued, _, _) = send(client, transitions.requeue(Q, [job_id], token="r", who="sam", generations=3))
    assert requeued == [job_id.encode()]
    accepted, expires, stopped = (
        int(v or 0) for v in client.hmget(keyspace.job(job_id), "accepted_ms", "expires_ms", "stopped_ms")
    )
    assert expires - accepted == 10
    assert client.zscore(keyspace.accepted(Q), job_id) == expires - stopped


def asked(workshop: Workshop, upstream: str) -> int:
    return int(workshop.providers.account(upstream)["asked"])


def worker_of(workshop: Workshop, *options: str) -> subprocess.Popen[bytes]:
    workshop.policy(deadline_seconds=30, backoff_seconds={"first": 0.1, "max": 0.2})
    return workshop.worker("--concurrency", "20", *options)


def test_running_jobs_end_and_do_not_fail_over_to_a_paused_provider(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "a", "retries": 0}], warm=[{"upstream": "b"}])
    workshop.providers.behave("a", status=503, latency=(1.0, 1.0))
    worker_of(workshop)
    job_id = producer.enqueue(chat())
    until(lambda: asked(workshop, "a") == 1, "the hot route is called")
    assert workshop.run("failover", "pause", "--provider", "b", "--reason", "its budget").returncode == 0
    result = until(lambda: (r := producer.fetch(job_id)).status is JobStatus.PARKED and r, "it is parked")
    assert "provider b is paused" in (result.waiting_for or "")
    assert asked(workshop, "b") == 0
    assert int(client.hget(keyspace.job(job_id), "executions") or 0) == 0
    assert workshop.run("failover", "resume", "--provider", "b").returncode == 0
    result = producer.wait(job_id, 20)
    assert (result.status, result.tier) == (JobStatus.DONE, "warm")


def test_a_paused_provider_leaves_the_others_serving_and_is_taken_back_at_once(
    workshop: Workshop, producer: Producer
) -> None:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    worker_of(workshop)
    told = workshop.run("failover", "pause", "--provider", "a", "--for", "1h")
    assert (told.returncode, told.stderr) == (0, "")
    served = [producer.wait(producer.enqueue(chat(str(n))), 20).route for n in range(3)]
    assert served == ["b/b-1"] * 3
    status = workshop.run("failover", "status").stdout
    assert "PAUSED: provider a" in status
    assert "until" in status
    assert workshop.run("failover", "resume", "--provider", "a").stdout == "resumed provider a\n"
    until(lambda: producer.wait(producer.enqueue(chat("x")), 20).route == "a/a-1", "hot serves again")
    assert "mistyped?" in workshop.run("failover", "pause", "--provider", "nobody").stderr


def test_with_every_provider_paused_nothing_starts_and_nothing_is_charged(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    worker_of(workshop)
    for provider in "ab":
        assert workshop.run("failover", "pause", "--provider", provider).returncode == 0
    job_id = producer.enqueue(chat(expires_after_seconds=1))
    since = until(lambda: client.hget(keyspace.stopped(Q), "since"), "the queue's clock stands")
    until(lambda: client.time()[0] * 1000 > int(since) + 2000, "longer than the job is worth")
    assert producer.fetch(job_id).status is JobStatus.QUEUED
    assert asked(workshop, "a") + asked(workshop, "b") == 0
    assert workshop.run("failover", "resume", "--provider", "b").returncode == 0
    assert producer.wait(job_id, 20).status is JobStatus.DONE


def test_a_resume_ramps_and_drains_in_order(workshop: Workshop, producer: Producer, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.providers.behave("a", latency=(0.3, 0.3))
    worker = worker_of(workshop)
    pause.pause(client, **WHO)
    until(lambda: workshop.events(worker, "pause"), "the worker knows")
    ids = [producer.enqueue(chat(str(n))) for n in range(40)]
    assert client.llen(keyspace.queue(Q)) == 40
    pause.resume(client, who="sam")
    until(lambda: asked(workshop, "a") >= 1, "it begins")
    assert ask(client, [("ZCARD", keyspace.leases(Q))])[0] <= 5  # of 20 slots
    for job_id in ids:
        assert producer.wait(job_id, 60).status is JobStatus.DONE
    started = [str(client.hget(keyspace.job(job_id), "started_at")) for job_id in ids]
    assert started == sorted(started)


def test_the_dry_run_tells_jobs_dollars_and_minutes(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "a", "price": {"input": 100, "output": 1000}}])
    worker_of(workshop)
    for n in range(3):
        assert producer.wait(producer.enqueue(chat(f"first {n}")), 20).status is JobStatus.DONE
    until(lambda: client.llen(keyspace.calls("a/a-1")) >= 3, "the calls are reported")
    pause.pause(client, **WHO)
    pause.pause(client, Scope(queue="other"), **WHO)
    for n in range(10):
        producer.enqueue(chat(f"more {n}"))
    told = workshop.run("failover", "resume", "--dry-run", "--json")
    found = json.loads(told.stdout)
    assert (found["jobs"], found["slots"], found["unknown"]) == (10, 20, [])
    assert found["dollars"] > 0
    assert found["minutes"] > 0
    assert [flag.partition(",")[0] for flag in found["still_paused"]] == ["queue other"]
    assert "10 jobs would start: about $" in workshop.run("failover", "resume", "--dry-run").stdout
    assert client.exists(keyspace.PAUSE)


def test_the_dry_run_says_what_it_does_not_know(client: redis.Redis, producer: Producer) -> None:
    pause.pause(client, **WHO)
    producer.enqueue(chat())
    found = backlog.estimate(client, EVERYTHING, Q)
    assert (found.jobs, found.dollars, found.minutes) == (1, None, None)
    assert found.unknown == ["no worker is running: start `failover-worker`"]


def test_somebody_is_reminded_of_a_pause_that_lasts(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    worker_of(workshop)
    second = workshop.worker()
    pause.pause(client, **WHO)

    def told() -> list[object]:
        return [line for p in workshop.processes for line in workshop.events(p, REMINDER)]

    until(told, "a reminder")
    until(lambda: workshop.events(second, "pause"), "both workers know of the pause")
    assert len(told()) == 1
    client.delete(keyspace.REMINDER)
    until(lambda: len(told()) == 2, "it is said again later")


REMINDER = "still paused: `failover status` says by whom, `failover resume` ends it"
