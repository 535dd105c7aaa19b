"""The failover drill on real workers: its fault concerns one feature, no breaker hears of it, and it ends with its holder."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from ops.simulators import provider
from ops.simulators.slack_api import Slack
from producer import Producer, keyspace
from producer.job import JobStatus
from producer.scripts import ask
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.replies import fields
from tests.support.workshop import Workshop
from worker.breakers import health
from worker.control import pause

HELD = {"feature": "summary", "provider": "a", "fault": "key_revoked", "who": "sam"}


@pytest.fixture
def place(workshop: Workshop, client: redis.Redis) -> Iterator[Workshop]:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    workshop.policy()
    workshop.worker()
    until(
        lambda: b"/" in (client.get(next(iter(client.keys("failover:routes:*")), "none")) or b""), "it tells its routes"
    )
    yield workshop


def answer(producer: Producer, feature: str) -> tuple[str | None, list[str]]:
    """(the route that answered a job of the feature, the outcomes of its attempts)."""
    result = producer.wait(producer.enqueue(chat(feature=feature)), 30)
    assert result.status is JobStatus.DONE
    return result.route, [attempt.outcome for attempt in result.attempted]


def held(client: redis.Redis, **changed: Any) -> None:
    client.set(keyspace.DRILL, json.dumps({**HELD, **changed}), px=8000)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [("key_revoked", "unauthorized"), ("blocked", "unreachable"), ("first_token_late", "slow_first_token")],
)
def test_a_fault_concerns_one_feature_and_no_breaker(
    place: Workshop, client: redis.Redis, producer: Producer, providers: provider.Control, fault: str, outcome: str
) -> None:
    held(client, fault=fault)
    until(lambda: answer(producer, "summary") == ("b/b-1", [outcome, "ok"]), "the worker has looked")
    before = providers.account("a")["answered"]
    for _ in range(5):
        assert answer(producer, "summary") == ("b/b-1", [outcome, "ok"])
    assert providers.account("a")["answered"] == before
    assert answer(producer, "other") == ("a/a-1", ["ok"])
    assert health.of_routes(client, ["a/a-1"])["a/a-1"].serves
    client.delete(keyspace.DRILL)
    until(lambda: answer(producer, "summary") == ("a/a-1", ["ok"]), "and its end")


def test_a_note_that_is_no_drill_breaks_nothing(place: Workshop, client: redis.Redis, producer: Producer) -> None:
    wrong = json.dumps({**HELD, "feature": ""}), json.dumps({**HELD, "fault": "x"}), '{"feature": "summary"}'
    for note in ("", "[]", '"x"', "{", *wrong):
        held(client)
        until(lambda: answer(producer, "summary")[0] == "b/b-1", "a fault is there")
        client.set(keyspace.DRILL, note, px=8000)
        until(lambda: answer(producer, "summary")[0] == "a/a-1", "the fault is gone")


def test_the_drill_passes_and_tells_the_channel(
    place: Workshop, client: redis.Redis, slack: Slack, providers: provider.Control
) -> None:
    providers.behave("b", latency=(0.3, 2.5))
    done = place.run("failover", "drill", "failover", "--feature", "summary", "--unattended", **slack.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the fault ends by itself: yes" in done.stdout
    assert "answered by the primary: 0 of 10" in done.stdout
    assert "answered by the primary: 5 of 5" in done.stdout
    assert re.search(r"^ +\d+\.\d s  \d of 10 done(, p95 .* s, SR 100%, \$.*, b/b-1 \d)?$", done.stdout, re.MULTILINE)
    assert "slack: the closeout arrived" in done.stdout
    told = slack.messages[-1].whole()
    assert all(figure in told for figure in ("TTR=", "p95=", "SR=100.0%"))
    actions = [fields(entry)["action"] for _, entry in ask(client, [("XRANGE", keyspace.AUDIT, "-", "+")])[0]]
    assert actions == ["drill began", "drill ended"]
    assert not client.exists(keyspace.DRILL)
    assert (
        "Failover drill on one feature" in place.run("failover", "drill", "list").stdout
        or client.llen(keyspace.DRILLS) == 1
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_drill_that_is_stopped_ends_its_fault(
    place: Workshop, client: redis.Redis, producer: Producer, number: signal.Signals
) -> None:
    process: subprocess.Popen[bytes] = place.start(
        "failover", "drill", "failover", "--feature", "summary", "--unattended"
    )
    until(
        lambda: client.exists(keyspace.DRILL) and b"key_revoked" in (client.get(keyspace.DRILL) or b""),
        "the fault is there",
    )
    process.send_signal(number)
    process.wait(30)
    until(lambda: not client.exists(keyspace.DRILL), "nobody keeps the lease", 60)
    until(lambda: answer(producer, "summary")[0] == "a/a-1", "the fault is over", 60)
    assert "Traceback" not in place.log(process)


def test_a_second_drill_is_refused(place: Workshop, client: redis.Redis) -> None:
    held(client)
    client.persist(keyspace.DRILL)
    done = place.run("failover", "drill", "failover", "--feature", "other", "--unattended")
    assert done.returncode == 2
    assert "no fault was set" in done.stderr
    assert json.loads(client.get(keyspace.DRILL) or b"{}") == HELD


def test_no_fault_is_set_where_it_would_hurt(place: Workshop, client: redis.Redis) -> None:
    pause.pause(client, pause.EVERYTHING, who="sam", why="a look")
    done = place.run("failover", "drill", "failover", "--feature", "summary", "--unattended")
    assert done.returncode == 2
    assert "FAIL nothing is paused" in done.stdout
    assert client.xlen(keyspace.AUDIT) == 1  # the pause


def test_without_a_second_provider_no_fault_is_set(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    workshop.worker()

    def refused() -> bool:
        done = workshop.run("failover", "drill", "failover", "--feature", "summary", "--unattended")
        assert done.returncode == 2
        return "FAIL routes that can answer for a: none" in done.stdout

    until(refused, "the worker tells its routes")


def test_without_redis_it_says_what_is_missing(workshop: Workshop) -> None:
    done = workshop.run("failover", "drill", "failover", "--feature", "summary", REDIS_URL="")
    assert done.returncode == 2
    assert "set REDIS_URL" in done.stderr
