"""Two sweeps: SIGKILL at every point of a worker's day, and the loss of every command or its reply."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import redis

from ops.local import session
from producer import Producer, keyspace
from producer.job import JobStatus
from producer.policy import Policies
from producer.scripts import Script
from producer.trail import BROKEN_OFF
from tests.support.jobs import asking, chat
from tests.support.kill_worker import POINTS
from tests.support.ledger import sums
from tests.support.money import budgets
from tests.support.polling import until
from tests.support.proxy import proxy
from tests.support.transitions import Q, where
from tests.support.workshop import Workshop
from worker.configuration import Configuration
from worker.queue import maintenance, transitions
from worker.routes.route import read_routes

ROOT = Path(__file__).parent.parent


def holds(client: redis.Redis, producer: Producer, job_ids: list[str]) -> None:
    """The invariants after every case: one state, one result, nothing left over."""
    results = [result for result in producer.fetch_many(job_ids) if result]
    assert [result.status for result in results] == [JobStatus.DONE] * len(job_ids)
    assert [where(client, job_id) for job_id in job_ids] == [["finished"]] * len(job_ids)
    assert {client.xlen(keyspace.results(job_id)) for job_id in job_ids} == {1}
    sets = (keyspace.accepted, keyspace.promised, keyspace.leases, keyspace.wip, keyspace.scheduled, keyspace.dead)
    for name in sets:
        assert client.zcard(name(Q)) == 0, name
    assert client.llen(keyspace.queue(Q)) == 0
    assert list(client.scan_iter("rq:execution*")) == []


def all_ended(producer: Producer, job_ids: list[str]) -> bool:
    return all(producer.ended(job_ids))


def served_micros(workshop: Workshop) -> int:
    """What `hot` would bill, at $1 and $2 a million tokens."""
    usages = [entry["usage"] for entry in workshop.providers.log("hot") if entry["usage"]]
    return sum(usage["prompt_tokens"] + 2 * usage["completion_tokens"] for usage in usages)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_every_job_ends_once(
    workshop: Workshop, producer: Producer, client: redis.Redis, point: str, when: str
) -> None:
    workshop.routes(hot=[{"upstream": "hot", "price": {"input": 1, "output": 2}}])
    budgets(workshop, total={"hard_usd": 5})
    workshop.providers.behave("hot", latency=(0.5, 0.6) if point == "heartbeat" else (0.05, 0.1))
    job_ids = [receipt.job_id for receipt in producer.enqueue_many(chat(str(n)) for n in range(6))]
    environment = {**os.environ, "REDIS_URL": workshop.url, **workshop.environment, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.support.kill_worker", f"{point}-{when}"]
    killed = subprocess.run(command, cwd=workshop.folder, env=environment, check=False, timeout=60, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    before = workshop.providers.account("hot")["asked"]
    workshop.worker()
    until(lambda: all(producer.ended(job_ids)), "a second worker ends them all", 40)
    holds(client, producer, job_ids)
    calls = workshop.providers.account("hot")["asked"]
    assert calls <= len(job_ids) + min(before, 3)  # three slots: at most what was in flight is asked again
    until(lambda: client.hlen(keyspace.RESERVATIONS) == 0, "the ledger is closed", 40)
    found, served = sums(client), served_micros(workshop)
    assert found["spent:total"] <= served <= found["spent:total"] + found.get("ambiguous:total", 0)
    assert not [name for name in found if name.startswith("held")]


@pytest.mark.parametrize("lose_reply", [False, True], ids=["request", "reply"])
def test_any_command_or_reply_lost_changes_nothing(
    workshop: Workshop, url: str, client: redis.Redis, policies: Policies, lose_reply: bool
) -> None:
    """Every script call of a batch's life, one by one: enqueue, claims, rows, heartbeats, promotions, reaps, settles."""
    workshop.routes(hot=[{"upstream": "hot", "price": {"input": 1, "output": 2}}])
    routes = read_routes(Path(workshop.environment["ROUTES_FILE"]), {})
    with proxy(Path(url.removeprefix("unix://"))) as between:
        for position in itertools.count():
            client.flushall()
            workshop.providers.forget()
            workshop.providers.behave("hot", latency=(0.02, 0.3))
            between.lose, between.lose_reply, between.lost = position, lose_reply, 0
            producer = Producer.from_url(between.url, policies)
            job_ids = [receipt.job_id for receipt in producer.enqueue_many(chat(str(n)) for n in range(5))]
            with session.own_worker(between.url, Configuration(policies, routes), slots=3):
                direct = Producer(client, policies)
                until(partial(all_ended, direct, job_ids), f"all end, call {position} lost", 40)
            producer.close()
            between.lose = -1
            holds(client, Producer(client, policies), job_ids)
            assert workshop.providers.account("hot")["asked"] == 5, f"call {position} lost"
            assert sums(client)["spent:total"] == served_micros(workshop), f"call {position} lost"
            if not between.lost:
                break  # a batch's life has no more calls than that
        assert position > 5


@pytest.mark.parametrize("lose_reply", [False, True], ids=["request", "reply"])
@pytest.mark.parametrize("script", [transitions.RESCHEDULE, transitions.BURY, transitions.RELEASE, transitions.EXTEND])
def test_no_outcome_is_lost_or_applied_twice(
    workshop: Workshop, url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, script: Script, lose_reply: bool
) -> None:
    """A day with a retry, a dead letter, a drain and heartbeats, in which one call of each script is lost."""
    monkeypatch.setattr(maintenance, "HEARTBEAT_SECONDS", 0.1)
    workshop.routes(hot=[{"upstream": "hot", "capabilities": []}])
    policies = workshop.policy(backoff_seconds={"first": 0.1, "max": 0.1})
    routes = read_routes(Path(workshop.environment["ROUTES_FILE"]), {})
    direct = Producer(client, policies)
    workshop.providers.behave("hot", status=500, times=2)
    retried = direct.enqueue(chat("retried"))
    buried = direct.enqueue(asking({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}))
    with proxy(Path(url.removeprefix("unix://"))) as between:
        between.script, between.lose, between.lose_reply = script.sha.encode(), 0, lose_reply
        with session.own_worker(between.url, Configuration(policies, routes), slots=1):
            until(lambda: all(direct.ended([retried, buried])), "a retry and a dead letter", 40)
            workshop.providers.behave("hot", latency=(1, 1))
            released = direct.enqueue(chat("released"))
            until(lambda: workshop.providers.account("hot")["in_flight"], "a job that the drain meets")
            until(lambda: between.lost or script is transitions.RELEASE, "the call is lost")
        assert between.lost == 1
        result = direct.fetch(released)
        assert (result.status, result.attempted[0].outcome) == (JobStatus.QUEUED, BROKEN_OFF)
        with session.own_worker(between.url, Configuration(policies, routes), slots=1):
            until(lambda: direct.ended([released])[0], "the released job", 40)
    statuses = [result.status for result in direct.fetch_many([retried, buried, released]) if result]
    assert statuses == [JobStatus.DONE, JobStatus.DEAD, JobStatus.DONE]
    assert [client.hget(keyspace.job(retried), "executions"), client.hget(keyspace.job(released), "crashes")] == [
        b"1",
        None,
    ]
    assert {client.xlen(keyspace.results(job_id)) for job_id in (retried, buried, released)} == {1}
    assert client.zcard(keyspace.leases(Q)) == 0
