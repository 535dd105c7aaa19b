"""The flags: nothing starts, running jobs end, no attempt or expiry is burned, providers close alone, the backlog drains."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any, TypedDict

import pytest
import redis

from ops.reports.why import story
from producer import Producer, keyspace
from producer.job import JobStatus
from producer.scripts import ask
from producer.trail import Attempt
from producer.waiting import WaitReason
from tests.support.jobs import asking, chat
from tests.support.polling import until
from tests.support.proxy import Proxy
from tests.support.replies import texts
from tests.support.transitions import Q, claim, send, settle
from tests.support.workshop import Workshop
from worker.control import pause
from worker.control.pause import EVERYTHING, Scope, paused
from worker.money import billing_alerts
from worker.money.billing_alerts import BillingReport, Guardrail
from worker.queue import transitions
from worker.queue.outcomes import Park
from worker.queue.waiting import Waiting
from worker.reports import backlog


class Who(TypedDict):
    who: str
    why: str


WHO: Who = {"who": "sam@laptop", "why": "testing"}
TRAIL = '[{"execution":1,"route":"a/a-1","tier":"hot","outcome":"server_error","at_ms":1}]'
GOOGLE = Scope(provider="gemini")


def look(client: redis.Redis, *providers: str) -> list[int]:
    reply: list[int] = send(client, pause.look([Q], providers))
    return reply


@pytest.mark.parametrize("scope", [EVERYTHING, Scope(queue="other"), GOOGLE], ids=str)
def test_a_flag_tells_who_why_since_and_until(client: redis.Redis, scope: Scope) -> None:
    pause.pause(client, scope, **WHO, seconds=3600)
    (flag,) = paused(client, [Q])
    assert (flag.scope.flag, flag.who, flag.why) == (scope.flag, "sam@laptop", "testing")
    assert flag.since is not None
    assert abs((flag.until or 0) - flag.since - 3600) <= 1
    assert 3590 < client.ttl(scope.flag) <= 3600
    assert pause.resume(client, scope, who="sam") == [Scope.of(scope.flag)]
    assert (paused(client, [Q]), pause.resume(client, scope, who="sam")) == ([], [])
    entries: Any = client.xrange(keyspace.AUDIT)
    actions = [entry[b"action"] for _, entry in entries]
    assert actions == [b"pause", b"resume"]


def test_a_pause_that_ran_out_or_was_deleted_by_hand_leaves_no_note_to_a_later_one(client: redis.Redis) -> None:
    pause.pause(client, **WHO)
    client.delete(keyspace.PAUSE)
    look(client)
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

    assert claims("google") == (0, [0, 0, 1])
    assert claims("anthropic", "google") == (1, [0, 0, 0, 1])


@pytest.mark.parametrize("scope", [EVERYTHING, Scope(queue=Q), GOOGLE], ids=str)
def test_a_pause_burns_no_expiry(producer: Producer, client: redis.Redis, scope: Scope) -> None:
    before = producer.enqueue(chat("before", expires_after_seconds=60))
    pause.pause(client, scope, **WHO)
    look(client, "google")
    since = int(client.hget(keyspace.stopped(Q), "since") or 0)
    client.hset(keyspace.stopped(Q), "since", since - 3_600_000)  # an hour ago
    client.zadd(keyspace.accepted(Q), {before: float(client.zscore(keyspace.accepted(Q), before) or 0) - 3_600_000})
    for field in ("accepted_ms", "expires_ms"):
        client.hincrby(keyspace.job(before), field, -3_600_000)
    during = producer.enqueue(chat("during", expires_after_seconds=60))
    assert send(client, transitions.expire(Q)) == []
    assert "if it is resumed now" in story(producer, producer.fetch(before))["told"][0]
    pause.resume(client, scope, who="sam")
    look(client, "google")
    assert send(client, transitions.expire(Q)) == []
    taken = claim(client, 2, "t")
    assert [held.job_id for held in taken] == [before, during]
    assert all(0 < held.expires_ms - held.claimed_ms <= 60_000 for held in taken)


def test_the_clock_runs_again_after_a_pause(producer: Producer, client: redis.Redis) -> None:
    client.hset(keyspace.stopped(Q), "total", 3_600_000)
    job_id = producer.enqueue(chat(expires_after_seconds=0.01))
    until(lambda: send(client, transitions.expire(Q)) == [job_id.encode()], "it expires")


def test_an_expiry_that_cannot_be_read_stops_no_claim(producer: Producer, client: redis.Redis) -> None:
    ids = [producer.enqueue(chat(str(n))) for n in range(2)]
    client.hset(keyspace.job(ids[0]), "expires_ms", "soon")
    assert [held.job_id for held in claim(client, 2, "t")] == ids


def test_a_pause_that_is_set_is_never_shortened(client: redis.Redis) -> None:
    assert pause.pause(client, **WHO, seconds=60).until is not None
    longer = pause.pause(client, who="kira", why="", seconds=600)
    assert (longer.who, longer.why, 590 < client.ttl(keyspace.PAUSE) <= 600) == ("sam@laptop", "testing", True)
    pause.pause(client, who="kira", why="shorter", seconds=5)
    assert client.ttl(keyspace.PAUSE) > 590
    endless = pause.pause(client, who="kira", why="")
    assert (endless.until, endless.why, client.ttl(keyspace.PAUSE)) == (None, "shorter", -1)
    assert pause.pause(client, who="sam", why="an hour", seconds=3600).until is None
    assert client.ttl(keyspace.PAUSE) == -1


def test_a_resume_after_maintenance_leaves_the_budgets_pause(client: redis.Redis) -> None:
    pause.pause(client, GOOGLE, who="budget", why="90%")
    pause.pause(client, **WHO)
    assert pause.resume(client, who="sam") == [EVERYTHING]
    assert [flag.who for flag in paused(client, [])] == ["budget"]


def test_a_claim_of_before_the_pause_that_arrives_after_it_starts_nothing(
    workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    """Its reply was lost, the pause came, and the worker asked again."""
    proxy = Proxy(Path(workshop.url.removeprefix("unix://")))
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    workshop.url, direct = proxy.url, workshop.url
    try:
        worker = workshop.worker()
        ids = [f"job{n}" for n in range(3)]
        pause.pause(client, Scope(queue=Q), **WHO)
        until(lambda: workshop.events(worker, "paused"), "the worker knows")
        for job_id in ids:
            producer.enqueue(chat(job_id), job_id=job_id)
            client.hset(keyspace.job(job_id), "trail", TRAIL)
        proxy.script, proxy.lose, proxy.lose_reply = transitions.CLAIM.sha.encode(), 0, True
        proxy.holds = True
        pause.resume(client, Scope(queue=Q), who="sam")
        until(lambda: proxy.lost and client.zcard(keyspace.leases(Q)), "it claims, and does not hear of it")
        pause.pause(client, **WHO)
        proxy.flowing.set()
        until(lambda: client.zcard(keyspace.leases(Q)) == 0, "it gives back what it may not start")
        assert asked(workshop, "a") == 0
        left = texts(client.lrange(keyspace.queue(Q), 0, -1))
        assert left == ids
        assert all(b"server_error" in (client.hget(keyspace.job(job_id), "trail") or b"") for job_id in left)
    finally:
        workshop.url = direct
        proxy.close()


@pytest.mark.parametrize("scope", [EVERYTHING, GOOGLE], ids=str)
def test_a_resume_wakes_what_was_parked_for_its_provider(producer: Producer, client: redis.Redis, scope: Scope) -> None:
    ids = [producer.enqueue(chat(str(n))) for n in range(2)]
    parked = (Waiting(WaitReason.PAUSED_ROUTE, ("provider:google",)), Waiting(WaitReason.ROUTE, ("provider:googlex",)))
    for held, waiting in zip(claim(client, 2, "t"), parked, strict=True):
        settle(client, held, Park(300, waiting, []))
    for flag in (EVERYTHING, GOOGLE):
        pause.pause(client, flag, who="budget", why="90%")
    pause.resume(client, scope, who="sam")
    assert send(client, transitions.promote(Q)) == 1
    assert [producer.fetch(job_id).status for job_id in ids] == [JobStatus.QUEUED, JobStatus.PARKED]


def test_a_queue_that_another_worker_serves_stands_by_nobodys_providers(client: redis.Redis) -> None:
    pause.pause(client, Scope(provider="alpha"), **WHO)
    look(client, "beta")  # serves
    look(client, "alpha")
    assert client.hget(keyspace.stopped(Q), "since") is None
    served = int(client.hget(keyspace.stopped(Q), "served_ms") or 0)
    client.hset(keyspace.stopped(Q), "served_ms", served - 6000)  # it has gone since
    look(client, "alpha")
    assert int(client.hget(keyspace.stopped(Q), "since") or 0) < served - 1000


def test_a_job_accepted_while_paused_stands_though_no_worker_ever_ran(producer: Producer, client: redis.Redis) -> None:
    pause.pause(client, **WHO)  # no queue is known yet
    job_id = producer.enqueue(chat(expires_after_seconds=0.01))
    until(lambda: client.time()[1] % 100_000 > 50_000, "a moment passes")
    assert send(client, transitions.expire(Q)) == []
    assert producer.fetch(job_id).status is JobStatus.QUEUED
    assert client.hget(keyspace.stopped(Q), "since")


def test_a_pause_that_ended_while_no_worker_ran_counts_to_its_end(producer: Producer, client: redis.Redis) -> None:
    producer.enqueue(chat())
    pause.pause(client, **WHO, seconds=0.05)
    until(lambda: not client.exists(keyspace.PAUSE), "it runs out")
    since = int(client.hget(keyspace.stopped(Q), "since") or 0)
    ends = int(client.hget(keyspace.stopped(Q), "ends_ms") or 0)
    client.hset(keyspace.stopped(Q), mapping={"since": since - 3_600_000, "ends_ms": ends - 3_600_000})  # an hour ago
    look(client)
    assert 0 < int(client.hget(keyspace.stopped(Q), "total") or 0) < 1000


def test_jobs_accepted_after_a_pause_whose_end_nobody_saw_lose_nothing(producer: Producer, client: redis.Redis) -> None:
    producer.enqueue(chat())
    pause.pause(client, **WHO, seconds=0.05)
    until(lambda: not client.exists(keyspace.PAUSE), "it runs out")
    since, ends = (int(client.hget(keyspace.stopped(Q), field) or 0) for field in ("since", "ends_ms"))
    client.hset(keyspace.stopped(Q), mapping={"since": since - 3_600_000, "ends_ms": ends - 3_600_000})
    job_id = producer.enqueue(chat("after", expires_after_seconds=60))
    assert int(client.hget(keyspace.job(job_id), "stopped_ms") or 0) < 1000
    pause.pause(client, **WHO)  # a second one, before anybody looked
    pause.resume(client, who="sam")
    look(client)
    assert int(client.hget(keyspace.stopped(Q), "total") or 0) < 1000
    assert send(client, transitions.expire(Q)) == []
    assert [held.job_id for held in claim(client, 2, "t")][-1] == job_id


@pytest.mark.parametrize("note", ["since tuesday", '{"who": "cron"}', '{"who": 5, "why": null}', "[]"])
def test_no_note_that_somebody_wrote_stops_a_budget(client: redis.Redis, note: str) -> None:
    client.set(keyspace.PAUSE, "1", ex=60)
    client.hset(keyspace.PAUSE_NOTES, keyspace.PAUSE, note)
    billing_alerts.observe(client, BillingReport("gemini", 90, message_id="m1"), Guardrail())
    assert client.ttl(keyspace.PAUSE) == -1
    assert [flag.who for flag in paused(client, [])] == ["budget", "budget"]


def test_a_note_that_somebody_wrote_by_hand_stops_no_resume(client: redis.Redis) -> None:
    pause.pause(client, **WHO)
    client.hset(keyspace.PAUSE_NOTES, keyspace.pause_of("other"), "since tuesday")
    client.set(keyspace.pause_of("other"), "1")
    assert pause.resume(client, who="sam") == [EVERYTHING]
    assert [(flag.queue, flag.who) for flag in paused(client, [])] == [("other", None)]


def test_another_flag_does_not_end_a_clock_that_stands_by_its_providers(
    client: redis.Redis, producer: Producer
) -> None:
    producer.enqueue(chat())
    pause.pause(client, GOOGLE, **WHO)
    look(client, "google")
    since = client.hget(keyspace.stopped(Q), "since")
    pause.pause(client, Scope(queue="other"), **WHO)
    pause.resume(client, Scope(queue="other"), who="sam")
    assert client.hget(keyspace.stopped(Q), "since") == since
    pause.resume(client, GOOGLE, who="sam")
    look(client, "google")
    assert client.hget(keyspace.stopped(Q), "since") is None


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
    pause.pause(client, Scope(provider="b"), **WHO)  # a command would start for longer than the call lasts
    result = until(lambda: (r := producer.fetch(job_id)).status is JobStatus.PARKED and r, "it is parked")
    assert "provider b is paused" in (result.waiting_for or "")
    assert asked(workshop, "b") == 0
    assert int(client.hget(keyspace.job(job_id), "executions") or 0) == 0
    assert workshop.run("failover", "resume", "--provider", "b").returncode == 0
    result = producer.wait(job_id, 20)
    assert (result.status, result.tier) == (JobStatus.DONE, "warm")


@pytest.mark.parametrize("fault", [{"unknown": ["tools"]}, {"status": 500}])
def test_a_paused_provider_costs_no_job_its_attempts(
    workshop: Workshop, producer: Producer, client: redis.Redis, fault: dict[str, object]
) -> None:
    workshop.routes(hot=[{"upstream": "a", "retries": 0}], warm=[{"upstream": "b"}])
    workshop.providers.behave("a", **fault)
    workshop.policy(attempts=2, executions=1, backoff_seconds={"first": 0.1, "max": 0.2})
    workshop.worker()
    pause.pause(client, Scope(provider="b"), **WHO)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    job = asking({"messages": [{"role": "user", "content": "x"}], "tools": tools})
    job_id = producer.enqueue(job)
    result = until(lambda: (r := producer.fetch(job_id)).status is JobStatus.PARKED and r, "it is parked")
    assert [entry.excused for entry in result.trail if isinstance(entry, Attempt)] == [True]
    pause.resume(client, Scope(provider="b"), who="sam")
    done = producer.wait(job_id, 20)
    assert (done.status, done.route) == (JobStatus.DONE, "b/b-1")


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
    assert "their providers: a, b" in workshop.run("failover", "pause", "--provider", "nobody").stderr


def test_with_every_provider_paused_nothing_starts_and_nothing_is_charged(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    worker_of(workshop)
    for provider in "ab":
        assert workshop.run("failover", "pause", "--provider", provider).returncode == 0
    job_id = producer.enqueue(chat(expires_after_seconds=4))
    accepted = int(client.hget(keyspace.job(job_id), "accepted_ms") or 0)
    until(lambda: client.time()[0] * 1000 > accepted + 5000, "longer than the job is worth")
    assert client.hget(keyspace.stopped(Q), "since")
    assert producer.fetch(job_id).status is JobStatus.QUEUED
    assert asked(workshop, "a") + asked(workshop, "b") == 0
    assert workshop.run("failover", "resume", "--provider", "b").returncode == 0
    assert producer.wait(job_id, 20).status is JobStatus.DONE


@pytest.mark.parametrize("scope", [EVERYTHING, Scope(queue=Q)], ids=str)
def test_a_resume_ramps_and_drains_in_order(
    workshop: Workshop, producer: Producer, client: redis.Redis, scope: Scope
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.providers.behave("a", latency=(0.3, 0.3))
    worker = worker_of(workshop)
    pause.pause(client, scope, **WHO)
    until(lambda: workshop.events(worker, "paused"), "the worker knows")
    ids = [producer.enqueue(chat(str(n))) for n in range(40)]
    assert client.llen(keyspace.queue(Q)) == 40
    pause.resume(client, scope, who="sam")
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
    pause.pause(client, Scope(provider="a"), **WHO)
    held = backlog.estimate(client, EVERYTHING, Q)
    assert (held.jobs, held.unknown) == (0, ["every route stays paused or disabled: nothing would start"])


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
    workshop.policy()
    oncall = Path(workshop.environment["POLICIES_DIR"]) / "oncall.yaml"
    oncall.write_text("{version: 1, hold_seconds: 0, reminder_minutes: 0.02}")
    workers = [worker_of(workshop), workshop.worker()]
    pause.pause(client, **WHO)

    def told(event: str) -> list[object]:
        return [line for worker in workers for line in workshop.events(worker, event)]

    until(lambda: told("incident digest"), "a reminder")
    assert len(told("incident opening")) == 1
    until(lambda: len(told("incident digest")) == 2, "it is said again, later")
    pause.resume(client, who="kira")
    until(lambda: told("incident closing"), "and that it is over")
