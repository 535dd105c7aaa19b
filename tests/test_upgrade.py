"""A Redis that the release before filled, with jobs in every state, is taken over by this one."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from ops.simulators.provider import Control
from producer import JobResult, Producer, keyspace
from producer.job import JobStatus
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.snapshot import restore
from tests.support.workshop import Workshop
from worker.reports import statement

DATA = Path(__file__).parent / "data"
TOLD = json.loads((DATA / "before_upgrade_jobs.json").read_text())
IDS: dict[str, list[str]] = TOLD["ids"]
PRICE = {"input": 3, "output": 15}


@pytest.fixture
def before(workshop: Workshop, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "a", "price": PRICE}], warm=[{"upstream": "b", "price": PRICE}])
    restore(client, DATA / "before_upgrade.json")


def answers(producer: Producer, ids: Sequence[str]) -> list[str]:
    return [result.text for result in producer.fetch_many(ids) if result is not None]


def test_what_was_accepted_before_the_upgrade_ends_after_it(
    workshop: Workshop, producer: Producer, client: redis.Redis, providers: Control, before: None
) -> None:
    assert answers(producer, IDS["done"]) == TOLD["answers"]
    spent = statement.sums(client)["total"].spent
    assert spent > 0
    open_ids = [*IDS["scheduled"], *IDS["running"], *IDS["waiting"]]
    workshop.worker()
    until(lambda: all(producer.ended(open_ids)), "all that was accepted ends", seconds=90)
    results = [result for result in producer.fetch_many(open_ids) if result is not None]
    assert {result.status for result in results} == {JobStatus.DONE}
    requeued = workshop.run("failover", "dlq", "requeue", "--all")
    assert requeued.returncode == 0, requeued.stderr
    until(lambda: all(producer.ended(IDS["dead"])), "the dead letters too")
    assert {result.status for result in producer.fetch_many(IDS["dead"]) if result is not None} == {JobStatus.DONE}
    paid = providers.account("a")["answers_by_key"]
    assert len(paid) == len(open_ids) + len(IDS["dead"]) and set(paid.values()) == {1}
    until(lambda: statement.sums(client)["total"].held == 0, "no call is open")
    assert statement.sums(client)["total"].spent > spent


def test_keys_of_idempotency_hold_over_the_upgrade(producer: Producer, before: None) -> None:
    job = chat("done 0", tenant_id="acme", feature="notes", idempotency_key="done-0")
    assert producer.enqueue(job) == IDS["done"][0]


def test_the_release_before_can_read_what_this_one_writes(
    workshop: Workshop, producer: Producer, client: redis.Redis, before: None
) -> None:
    """It read the whole result from `return_value`, and needs these fields."""
    workshop.worker()
    until(lambda: all(producer.ended(IDS["waiting"])), "they end", seconds=90)
    for job_id in IDS["waiting"]:
        entries: Any = client.xrange(keyspace.results(job_id))
        ((_, entry),) = entries
        read = JobResult.model_validate(json.loads(b64decode(entry[b"return_value"])))
        assert (read.job_id, read.status) == (job_id, JobStatus.DONE) and read.text
