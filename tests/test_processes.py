"""`failover-worker --processes`: a parent that starts workers, replaces those that die, and drains them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
import redis

from producer import Producer, keyspace
from tests.support.jobs import chat, results
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.control import worker_registry


def workers(client: redis.Redis) -> set[int]:
    """The process ids of the workers that are registered."""
    return {int(name.split("-")[-2]) for name in worker_registry.names(client)}


def is_gone(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


@pytest.fixture
def parent(workshop: Workshop, client: redis.Redis) -> Iterator[subprocess.Popen[bytes]]:
    workshop.routes(hot=[{"upstream": "hot"}])
    process = workshop.worker("--processes", "2", "--concurrency", "5", "--drain-seconds", "5")
    until(lambda: len(workers(client)) == 2, "two workers are registered")
    yield process
    for pid in (process.pid, *workers(client)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_work_is_done_by_both_and_all_drain_together(
    parent: subprocess.Popen[bytes], workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    workshop.providers.behave("hot", latency=(0.1, 0.2))
    both = workers(client)
    accepted = producer.enqueue_many(chat(str(number)) for number in range(40))
    done = results(producer, [receipt.job_id for receipt in accepted])
    assert {result.status for result in done} == {"done"}
    names = worker_registry.names(client)
    counts = [int(client.hget(keyspace.worker(name), "successful_job_count") or 0) for name in names]
    assert sum(counts) == 40
    assert all(counts)
    parent.terminate()
    assert parent.wait(20) == 0
    assert workers(client) == set()
    assert all(map(is_gone, both))


def test_a_killed_worker_is_replaced_and_its_jobs_are_done(
    parent: subprocess.Popen[bytes], workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    first = min(workers(client))
    os.kill(first, signal.SIGKILL)
    until(lambda: len(workers(client) - {first}) == 2, "another worker takes its place")
    (done,) = results(producer, [producer.enqueue(chat("after it"))])
    assert done.status == "done"
    assert "killed by SIGKILL" in workshop.log(parent)


def test_a_worker_that_is_told_to_stop_is_replaced_while_the_parent_works(
    parent: subprocess.Popen[bytes], client: redis.Redis
) -> None:
    first = min(workers(client))
    os.kill(first, signal.SIGTERM)
    until(lambda: len(workers(client) - {first}) == 2, "another worker takes its place")


def test_without_their_parent_the_workers_drain(parent: subprocess.Popen[bytes], client: redis.Redis) -> None:
    both = workers(client)
    parent.kill()
    parent.wait()
    until(lambda: workers(client) == set(), "both workers leave")
    until(lambda: all(map(is_gone, both)), "both processes end")


def test_ctrl_c_reaches_every_worker_once(parent: subprocess.Popen[bytes], client: redis.Redis) -> None:
    parent.send_signal(signal.SIGINT)
    assert parent.wait(20) == 0
    assert workers(client) == set()


def test_a_burst_ends_when_nothing_is_left(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    accepted = producer.enqueue_many(chat(str(number)) for number in range(10))
    ended = workshop.run("failover-worker", "--processes", "2", "--burst")
    assert ended.returncode == 0, ended.stderr
    assert all(producer.ended([receipt.job_id for receipt in accepted]))


def test_what_is_wrong_with_the_configuration_is_said_once(workshop: Workshop) -> None:
    (workshop.folder / "routes.json").write_text("{")
    ended = workshop.run("failover-worker", "--processes", "2", ROUTES_FILE=str(workshop.folder / "routes.json"))
    assert ended.returncode == 2
    assert ended.stderr.count("failover-worker:") == 1
