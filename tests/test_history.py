"""The history: every outcome and every paid call is counted once, by minute and hour, whoever is killed."""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from ops.reports.checks.growth import check_growth
from ops.simulators.provider import Control
from producer import Producer, keyspace
from producer.connection import connect_async
from producer.job import DeadReason
from producer.scripts import ask
from producer.trail import Attempt
from tests.support.jobs import chat, results
from tests.support.ledger import MONTH
from tests.support.polling import until
from tests.support.transitions import Q, claim, send, settle
from tests.support.workshop import Workshop
from worker.history.collector import Collector
from worker.history.document import NAMES_KEPT, OTHERS, Document, Facts, Histogram, bucket_of, together
from worker.history.leader import HistoryLeader
from worker.history.policy import HistoryPolicy
from worker.history.read import slices
from worker.queue import dead_letters, lost, tenant_jobs, transitions
from worker.queue.outcomes import Dead


def collect(url: str) -> None:
    async def step() -> None:
        client = connect_async(url, max_connections=2)
        try:
            await Collector(client).step()
        finally:
            await client.aclose()

    asyncio.run(step())


def history(client: redis.Redis, hours: int = 1) -> Document:
    now_ms = int(ask(client, [("TIME",)])[0][0]) * 1000
    return together(each.document for each in slices(client, now_ms - hours * 3_600_000, now_ms))


@given(st.lists(st.floats(1, 3_600_000), min_size=1, max_size=300), st.floats(0.01, 1))
def test_a_quantile_is_within_two_percent(times: list[float], share: float) -> None:
    histogram = Histogram()
    for ms in times:
        histogram.count(bucket_of(ms))
    exact = sorted(times)[math.ceil(share * len(times)) - 1]
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.0201)


def test_a_document_is_read_as_it_was_written_and_keeps_the_heaviest_names() -> None:
    document = Document()
    for number in range(1, 201):
        facts = document.of("tenant", f"t{number}")
        facts.count("done", number)
        facts.time("answer", bucket_of(number))
    read = Document.unpacked(document.packed())
    kept = read.facts["tenant"]
    assert len(kept) == NAMES_KEPT + 1 and "t200" in kept and "t1" not in kept
    assert sum(facts.counters["done"] for facts in kept.values()) == sum(range(1, 201))
    assert sum(facts.times["answer"].times for facts in kept.values()) == 200
    assert kept[OTHERS].counters["done"] == sum(range(1, 161))
    for broken in (b"", b"x", None):
        assert Document.unpacked(broken).facts["tenant"] == {}


def test_every_outcome_and_call_is_counted_by_feature_tenant_route_and_provider(
    workshop: Workshop, producer: Producer, client: redis.Redis, providers: Control
) -> None:
    price = {"input": 3, "output": 15}
    workshop.routes(hot=[{"upstream": "a", "price": price}], warm=[{"upstream": "b", "price": price}])
    jobs = [chat(str(n), tenant_id=f"t{n % 2}", feature=f"f{n % 3}") for n in range(30)]
    ids = [receipt.job_id for receipt in producer.enqueue_many(jobs)]
    workshop.worker()
    until(lambda: all(producer.ended(ids)), "all ended")
    collect(workshop.url)
    results = [result for result in producer.fetch_many(ids) if result is not None]
    found = history(client)
    everything = found.facts["all"][""]
    assert everything.counters["done"] == 30
    assert everything.counters["micros"] == sum(round((result.cost_usd or 0) * 1e6) for result in results)
    assert [found.facts["tenant"][f"t{n}"].counters["done"] for n in range(2)] == [15, 15]
    assert [found.facts["feature"][f"f{n}"].counters["calls"] for n in range(3)] == [10, 10, 10]
    assert set(found.facts["route"]) == {"a/a-1"} and set(found.facts["provider"]) == {"a"}
    answers = everything.times["answer"]
    assert answers.times == 30
    exact = sorted((result.queue_latency_ms or 0) + (result.run_ms or 0) for result in results)[28]
    assert answers.quantile(0.95) == pytest.approx(exact, rel=0.021, abs=1)
    shown = workshop.run("failover", "history", "show", "--since", "1h").stdout
    assert "30 done, 0 dead" in shown and "for 30 paid calls" in shown and "a/a-1" in shown
    data = json.loads(workshop.run("failover", "history", "show", "--feature", "f1", "--json").stdout)
    assert data["total"]["counters"]["done"] == sum(each["counters"]["done"] for each in data["slices"]) == 10
    assert "nothing happened" in workshop.run("failover", "history", "show", "--tenant", "nobody").stdout
    lines = [json.loads(line) for line in workshop.run("failover", "history", "export").stdout.splitlines()]
    assert sum(line["counters"]["calls"] for line in lines if line["of"] == "tenant" and line["name"] == "t1") == 15


def test_it_equals_what_happened_also_with_kills_in_between(
    workshop: Workshop, producer: Producer, client: redis.Redis, providers: Control
) -> None:
    workshop.routes(hot=[{"upstream": "a", "price": {"input": 3, "output": 15}}])
    rand = random.Random(5)
    ids = [
        receipt.job_id for receipt in producer.enqueue_many([chat(str(n), tenant_id=f"t{n % 3}") for n in range(60)])
    ]
    while not all(producer.ended(ids)):
        worker = workshop.worker("--concurrency", "8")
        done = sum(producer.ended(ids))
        wanted = min(60, done + rand.randint(8, 20))
        until(lambda wanted=wanted: sum(producer.ended(ids)) >= wanted, "some more ended", seconds=60)  # type: ignore[misc]
        if rand.random() < 0.5:
            collect(workshop.url)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    for _ in range(2):
        collect(workshop.url)
    found = history(client)
    assert found.facts["all"][""].counters["done"] == 60
    assert [found.facts["tenant"][f"t{n}"].counters["done"] for n in range(3)] == [20, 20, 20]


def test_what_people_end_is_counted_by_feature_and_tenant(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    jobs = [chat(str(n), tenant_id=f"t{n % 2}", feature=f"f{n % 3}") for n in range(12)]
    ids = [receipt.job_id for receipt in producer.enqueue_many(jobs)]
    for held in claim(client, 4):
        settle(client, held, Dead(DeadReason.EXHAUSTED, "no route answered", (), 100))
    dead_letters.resolve(client, ids[0], "an answer", who="ana", keep_seconds=100)
    dead_letters.resolve(client, ids[11], "before any worker had it", who="ana", keep_seconds=100)
    assert dead_letters.discard(client, Q, ids[1:3], who="ana") == 2
    assert dead_letters.discard(client, Q, ids[1:3], who="ana") == 0
    producer.cancel(ids[4], who="ana")
    producer.cancel(ids[4], who="ana")
    assert tenant_jobs.cancel(client, Q, "t1", ids[5:10], who="ana", report=lambda _: None) == 3
    client.hset(keyspace.LOST, "gone", "{}")
    assert lost.discard(client, ["gone"], who="ana") == 1
    for _ in range(2):
        collect(workshop.url)
    found = history(client)

    def counted(dimension: str, name: str) -> dict[str, int]:
        counters = found.facts[dimension][name].counters
        return {kind: counters[kind] for kind in ("resolved", "cancelled", "discarded") if kind in counters}

    assert counted("all", "") == {"resolved": 2, "cancelled": 4, "discarded": 3}
    assert counted("tenant", "t0") == {"resolved": 1, "cancelled": 1, "discarded": 1}
    assert counted("tenant", "t1") == {"resolved": 1, "cancelled": 3, "discarded": 1}
    assert counted("feature", "f0") == {"resolved": 1, "cancelled": 1}
    assert counted("feature", "f1") == {"cancelled": 2, "discarded": 1}
    assert counted("feature", "f2") == {"resolved": 1, "cancelled": 1, "discarded": 1}
    shown = workshop.run("failover", "history", "show").stdout
    assert "2 answered by people; 4 cancelled; 3 dead letters discarded" in shown


def test_a_job_that_dies_without_a_worker_is_counted_by_its_feature(producer: Producer, client: redis.Redis) -> None:
    producer.enqueue(chat("late", tenant_id="acme", feature="notes", expires_after_seconds=1))
    until(lambda: send(client, transitions.expire(Q)), "it expires", seconds=5)
    by_rq = producer.enqueue(chat(tenant_id="acme", feature="notes"))
    client.hset(keyspace.job(by_rq), "status", "failed")
    assert send(client, transitions.audit(Q, [by_rq]))[2] == [by_rq.encode()]
    entries: Any = client.xrange(keyspace.HAPPENED)
    for (_, entry), reason in zip(entries, ("expired", "failed_by_rq"), strict=True):
        assert json.loads(entry[b"e"]) == {"kind": "dead", "reason": reason, "tenant": "acme", "feature": "notes"}


def test_the_time_to_the_first_token_is_counted_where_an_answer_was_streamed(
    workshop: Workshop, producer: Producer, client: redis.Redis, providers: Control
) -> None:
    workshop.routes(hot=[{"upstream": "a", "streamTimeoutSeconds": 5}])
    providers.behave("a", first_token=0.2, chunk_gap=0.05)
    workshop.worker("--concurrency", "4")
    ids = [receipt.job_id for receipt in producer.enqueue_many([chat(str(n), feature="f") for n in range(12)])]
    attempts = [entry for result in results(producer, ids) for entry in result.trail if isinstance(entry, Attempt)]
    firsts = sorted(entry.first_token_ms or 0 for entry in attempts)
    assert all(200 <= (entry.first_token_ms or 0) <= entry.ms - 100 for entry in attempts)
    collect(workshop.url)
    for dimension, name in (("all", ""), ("feature", "f"), ("route", "a/a-1"), ("provider", "a")):
        histogram = history(client).facts[dimension][name].times["first token"]
        assert histogram.times == 12
        assert histogram.quantile(0.5) == pytest.approx(firsts[5], rel=0.021, abs=1)
        assert histogram.quantile(0.95) == pytest.approx(firsts[11], rel=0.021, abs=1)
    assert "first token" in workshop.run("failover", "history", "show").stdout


def test_an_answer_in_one_piece_has_no_first_token(
    workshop: Workshop, producer: Producer, client: redis.Redis, providers: Control
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.worker()
    (result,) = results(producer, [producer.enqueue(chat())])
    assert [entry.first_token_ms for entry in result.trail if isinstance(entry, Attempt)] == [None]
    entries: Any = client.xrange(keyspace.HAPPENED)
    assert not any(b"first_token" in entry[b"e"] for _, entry in entries)
    collect(workshop.url)
    assert "first token" not in history(client).facts["all"][""].times


def test_two_that_count_at_once_count_once(
    workshop: Workshop, producer: Producer, client: redis.Redis, url: str
) -> None:
    for number in range(3000):
        record = '{"kind":"done","tenant":"acme","route":"a","provider":"p","answer_ms":%d,"run_ms":1,"attempts":[]}'
        client.xadd(keyspace.HAPPENED, {"e": record % (number + 1)})
    client.xadd(keyspace.HAPPENED, {"e": "{"})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(collect, [url] * 4))
    collect(url)
    assert history(client).facts["tenant"]["acme"].counters == {"done": 3000}
    assert client.xlen(keyspace.HAPPENED) == 0


def test_one_worker_keeps_the_history(url: str, client: redis.Redis) -> None:
    async def step(name: str) -> None:
        other = connect_async(url, max_connections=2)
        try:
            await HistoryLeader(other, name, HistoryPolicy, None).step()
        finally:
            await other.aclose()

    client.xadd(keyspace.HAPPENED, {"e": '{"kind":"parked","attempts":[["r","timeout",9]]}'})
    client.set(keyspace.HISTORY_LEADER, uuid4().hex)
    asyncio.run(step("me"))
    assert client.xlen(keyspace.HAPPENED) == 1
    client.delete(keyspace.HISTORY_LEADER)
    asyncio.run(step("me"))
    facts = history(client).facts
    assert facts["all"][""].counters == {"parked": 1, "attempts": 1, "attempts timeout": 1}
    assert facts["route"]["r"].counters == {"attempts": 1, "attempts timeout": 1}
    assert isinstance(facts["all"][""], Facts)


def test_the_doctor_computes_the_memory_of_the_next_weeks(
    workshop: Workshop, producer: Producer, client: redis.Redis, providers: Control
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    ids = [receipt.job_id for receipt in producer.enqueue_many([chat(str(n)) for n in range(3)])]
    workshop.worker()
    until(lambda: all(producer.ended(ids)), "all ended")
    for _ in range(697):
        client.xadd(keyspace.HAPPENED, {"e": '{"kind":"done","answer_ms":1,"run_ms":1}'})
    collect(workshop.url)
    environment = {**workshop.environment, "REDIS_URL": workshop.url}
    (finding,) = check_growth(environment)
    assert finding.level == "ok" and "100 jobs a day" in finding.told and "for 7 days" in finding.told
    client.config_set("maxmemory", "60mb")
    try:
        (finding,) = check_growth(environment)
    finally:
        client.config_set("maxmemory", "0")
    assert finding.level == "warn" and "keep_results_seconds" in finding.told


def test_status_says_that_history_cannot_be_written(workshop: Workshop, client: redis.Redis) -> None:
    (workshop.folder / "policies").mkdir(exist_ok=True)
    (workshop.folder / "policies" / "history.yaml").write_text("version: 1\nledger: {rows: 100}\n")
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    (workshop.folder / "file").write_text("in the way")
    for number in range(150):
        client.xadd(
            keyspace.LEDGER + MONTH, {"id": f"r{number}", "tenant": "t", "provider": "p", "user": "", "feature": ""}
        )
    workshop.worker(HISTORY_URL=str(workshop.folder / "file"))
    shown = until(
        lambda: (out := workshop.run("failover", "status").stdout) and "HISTORY_URL" in out and out, "it is shown"
    )
    assert "FAILING" in shown and "they stay in Redis" in " ".join(shown.split())
    assert client.xlen(keyspace.LEDGER + MONTH) == 150
