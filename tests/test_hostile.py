"""What an attack found, held by a test each: strange bytes, corrupt hashes, a full, silent or restarted Redis."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from ops.local import embedded
from ops.simulators import provider
from producer import JobResult, Producer, keyspace
from producer.connection import connect
from producer.errors import ConfigurationError, InvalidJob
from producer.job import JobStatus, LLMJob
from producer.policy import load_policies
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.transitions import Q
from tests.support.workshop import Workshop
from worker.errors.classify import redacted


@pytest.fixture
def apart(tmp_path: Path, providers: provider.Control) -> Iterator[Workshop]:
    """A workshop with a server of its own, to be hurt."""
    with embedded.running(tmp_path / "valkey") as url:
        workshop = Workshop(tmp_path, url, providers)
        workshop.routes(hot=[{"upstream": "hot"}], warm=[{"upstream": "warm"}])
        yield workshop
        for process in workshop.processes:
            process.kill()
            process.wait()


def server_pid(workshop: Workshop) -> int:
    with connect(workshop.url) as client:
        return int(client.info("server")["process_id"])


def ended(producer: Producer, job_ids: list[str], seconds: float = 60) -> list[JobResult]:
    until(lambda: all(producer.ended(job_ids)), "all jobs end", seconds)
    return [result for result in producer.fetch_many(job_ids) if result]


def answered(workshop: Workshop, count: int) -> bool:
    return bool(workshop.providers.account("hot")["answered"] >= count)


def gone(pid: int) -> bool:
    return not alive(pid)


def alive(pid: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)
        os.kill(pid, 0)
    except (ChildProcessError, ProcessLookupError):
        return False
    return True


@pytest.fixture
def answering() -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers every request with the bytes given."""
    answer: list[bytes] = []

    def serve(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer[0])

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", answer


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 503 Nicht verf\xfcgbar\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\xff\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"[" * 9999,
    ],
)
def test_whatever_a_provider_sends_warm_takes_over(
    workshop: Workshop, producer: Producer, answering: tuple[str, list[bytes]], raw: bytes
) -> None:
    base_url, answer = answering
    answer.append(raw)
    workshop.routes(hot=[{"upstream": "hot", "baseUrl": base_url}], warm=[{"upstream": "warm"}])
    workshop.worker()
    first, second = ended(producer, [producer.enqueue(chat("a")), producer.enqueue(chat("b"))])
    assert (first.status, first.tier) == (second.status, second.tier) == (JobStatus.DONE, "warm")


@pytest.mark.parametrize("key", ["müller:1", "a\nb", "\x01", "😀" * 100])
def test_any_idempotency_key_is_safe_on_the_wire(workshop: Workshop, producer: Producer, key: str) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.worker()
    mine, theirs = (producer.enqueue(chat(idempotency_key=key, tenant_id=tenant)) for tenant in ("me", "them"))
    assert {result.status for result in ended(producer, [mine, theirs])} == {JobStatus.DONE}
    assert len(workshop.providers.account("hot")["by_key"]) == 2  # two tenants, two keys


def test_a_key_that_a_provider_quotes_is_cut_out(workshop: Workshop, producer: Producer) -> None:
    error = {"message": "no such thing as my-odd-key (also sk-proj-abcdefghijklmnop)"}
    workshop.routes(hot=[{"upstream": "hot", "apiKeyEnv": "K"}])
    workshop.providers.behave("hot", status=400, error=error)
    worker = workshop.worker(K="my-odd-key")
    (result,) = ended(producer, [producer.enqueue(chat())])
    assert result.dead_detail == "bad_request: no such thing as [key] (also [key])"
    assert "my-odd-key" not in workshop.log(worker) + result.model_dump_json()
    assert redacted("nothing to hide", "") == "nothing to hide"


def test_a_wrong_key_parks_jobs_instead_of_burying_them(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.providers.behave("hot", status=401)
    workshop.worker("--concurrency", "1")
    job_ids = [producer.enqueue(chat(str(n))) for n in range(3)]
    until(lambda: producer.fetch(job_ids[0]).status is JobStatus.PARKED, "the first is parked")
    assert "unauthorized" in (producer.fetch(job_ids[0]).waiting_for or "")
    assert workshop.providers.account("hot")["asked"] == 1


def test_corrupt_hashes_and_ids_are_quarantined_or_executed(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.policy(executions=2, backoff_seconds={"first": 0.1, "max": 0.1})
    workshop.providers.behave("hot", status=500)
    odd = [producer.enqueue(chat(str(n))) for n in range(4)]
    for job_id, (field, value) in zip(
        odd, [("executions", "abc"), ("executions", "1.5"), ("crashes", "abc"), ("trail", "{")], strict=True
    ):
        client.hset(keyspace.job(job_id), field, value)
    client.hset("rq:job:no-status", "data", "x")
    client.hset(b"rq:job:\xff", "status", "queued")
    client.lpush(keyspace.queue(Q), "no-status", b"\xff")
    worker = workshop.worker("--concurrency", "1")
    until(lambda: client.hlen(keyspace.LOST) == 2, "two entries are quarantined")
    workshop.providers.behave("hot")
    assert all(result.status.ended for result in ended(producer, odd, 90))
    assert worker.poll() is None


def test_a_job_deleted_or_cancelled_by_rq_while_it_runs_does_not_come_back(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    from rq.job import Job

    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.providers.behave("hot", latency=(3.0, 3.0))
    worker = workshop.worker()
    deleted, cancelled, kept = (producer.enqueue(chat(str(n))) for n in range(3))
    until(lambda: workshop.providers.account("hot")["in_flight"] == 3, "all run")
    Job.fetch(deleted, connection=client, serializer="json").delete()
    Job.fetch(cancelled, connection=client, serializer="json").cancel()
    assert ended(producer, [kept])[0].status is JobStatus.DONE
    until(lambda: len(workshop.events(worker, "fenced")) == 2, "two outcomes are fenced")
    assert not client.exists(keyspace.job(deleted))
    assert producer.fetch(cancelled).status is JobStatus.CANCELLED
    assert client.zcard(keyspace.accepted(Q)) == 0


def test_jobs_that_wait_past_their_expiry_are_buried_while_they_wait(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.providers.behave("hot", status=429, retry_after="1e9")
    workshop.worker("--concurrency", "1")
    job_ids = [producer.enqueue(chat(str(n), expires_after_seconds=2)) for n in range(2)]
    assert {result.dead_reason for result in ended(producer, job_ids)} == {"expired"}


def test_a_full_redis_takes_no_job_and_lets_running_ones_end(apart: Workshop) -> None:
    apart.providers.behave("hot", latency=(3.0, 3.0))
    apart.worker()
    with connect(apart.url) as client:
        producer = Producer(client, load_policies({}))
        job_ids = [producer.enqueue(chat(str(n))) for n in range(10)]
        until(lambda: apart.providers.account("hot")["in_flight"] == 10, "all run")
        client.config_set("maxmemory", "1mb")
        with pytest.raises(Exception, match="maxmemory"):
            producer.enqueue(chat("too much"))
        assert {(result.status, result.attempts) for result in ended(producer, job_ids)} == {(JobStatus.DONE, 1)}
        client.config_set("maxmemory", "0")
        producer.enqueue(chat("again"))


def test_a_redis_that_is_read_only_for_a_while_loses_no_result(apart: Workshop) -> None:
    """As in a failover to a replica: writes are refused, results wait, nothing is called again."""
    apart.providers.behave("hot", latency=(1.0, 1.5))
    worker = apart.worker()
    with connect(apart.url) as client:
        producer = Producer(client, load_policies({}))
        job_ids = [producer.enqueue(chat(str(n))) for n in range(10)]
        until(lambda: apart.providers.account("hot")["in_flight"] == 10, "all run")
        client.replicaof("127.0.0.1", "1")
        until(lambda: apart.providers.account("hot")["answered"] == 10, "all are answered")
        until(lambda: "redis is away" in apart.log(worker), "the worker finds out")
        client.replicaof("NO", "ONE")
        assert {(result.status, result.attempts) for result in ended(producer, job_ids)} == {(JobStatus.DONE, 1)}
    assert apart.providers.account("hot")["asked"] == 10


@pytest.mark.timeout(180)
def test_a_redis_that_stands_still_longer_than_a_lease_costs_no_second_call(apart: Workshop) -> None:
    apart.providers.behave("hot", latency=(2.0, 4.0))
    for _ in range(2):
        apart.worker()
    with connect(apart.url) as client:
        producer = Producer(client, load_policies({}))
        job_ids = [receipt.job_id for receipt in producer.enqueue_many(chat(str(n)) for n in range(40))]
        until(lambda: apart.providers.account("hot")["in_flight"] == 40, "all run")
        leases = client.zrange(keyspace.leases(Q), 0, -1, withscores=True)
        last_lease_ends = max(float(score) for _, score in leases) / 1000
    pid = server_pid(apart)
    os.kill(pid, signal.SIGSTOP)
    import time

    until(lambda: time.time() > last_lease_ends + 3, "every lease has run out", 60)
    os.kill(pid, signal.SIGCONT)
    with connect(apart.url) as client:
        found = ended(Producer(client, load_policies({})), job_ids, 90)
    assert {(result.status, result.attempts) for result in found} == {(JobStatus.DONE, 1)}
    assert apart.providers.account("hot")["asked"] == 40


@pytest.mark.timeout(180)
def test_a_worker_drains_also_while_redis_stands_still(apart: Workshop) -> None:
    apart.providers.behave("hot", fault="hang")
    worker = apart.worker("--drain-seconds", "1")
    with connect(apart.url) as client:
        Producer(client, load_policies({})).enqueue(chat())
        until(lambda: apart.providers.account("hot")["in_flight"] == 1, "it runs")
    pid = server_pid(apart)
    os.kill(pid, signal.SIGSTOP)
    try:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.timeout(180)
def test_redis_killed_and_restarted_under_load_loses_and_doubles_nothing(apart: Workshop, tmp_path: Path) -> None:
    """AOF fsync always, as where nothing may be lost; SCRIPT FLUSH on top, as a restart forgets every script."""
    apart.providers.behave("hot", latency=(0.1, 1.0))
    apart.worker("--concurrency", "20")
    with connect(apart.url) as client:
        client.config_set("appendfsync", "always")
        job_ids = [r.job_id for r in Producer(client, load_policies({})).enqueue_many(chat(str(n)) for n in range(100))]
    for round_ in range(2):
        until(partial(answered, apart, 20 * (round_ + 1)), "some are answered")
        pid = server_pid(apart)
        os.kill(pid, signal.SIGKILL)
        until(partial(gone, pid), "it is gone")
        apart.processes.append(embedded.start_server(tmp_path / "valkey", {"appendfsync": "always"}))
    with connect(apart.url) as client:
        client.script_flush()
        producer = Producer(client, load_policies({}))
        found = ended(producer, job_ids, 90)
        assert {result.status for result in found} == {JobStatus.DONE}
        assert {client.xlen(keyspace.results(job_id)) for job_id in job_ids} == {1}
    assert apart.providers.account("hot")["asked"] == 100


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "appendonly yes")],
)
def test_an_unsafe_redis_is_refused_with_the_mend_or_allowed_aloud(
    apart: Workshop, setting: str, value: str, told: str
) -> None:
    with connect(apart.url) as client:
        client.config_set(setting, value)
    refused = apart.run("failover-worker", "--burst")
    assert refused.returncode == 3
    assert told in refused.stderr
    allowed = apart.run("failover-worker", "--burst", "--allow-unsafe-redis")
    assert allowed.returncode == 0
    assert told in allowed.stderr


@pytest.mark.parametrize(
    "url", ["http://h", "redis://h:bad", "redis://[::1", "redis://h?db=x", "redis://h?foo=1", "redis://:s3cr/et@h"]
)
def test_a_redis_url_that_cannot_be_read_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        connect(url)
    assert "REDIS_URL" in str(error.value) and "s3cr" not in str(error.value)


def test_bodies_that_cannot_travel_are_refused_at_the_door(producer: Producer) -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    unsendable: list[Any] = ["\ud800", deep, float("nan"), object(), b"\xff"]
    for content in unsendable:
        with pytest.raises(InvalidJob, match="cannot be sent as JSON"):
            producer.enqueue(chat(content))
    with pytest.raises(InvalidJob, match="schema_version"):
        LLMJob.parse({"schema_version": 99, "body": {"messages": [{"role": "user"}]}})
