"""The public API as a web app uses it: sync and async, waiting, and a Redis that does not answer."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from producer import AsyncProducer, InvalidJob, LLMJob, Producer, ServiceUnavailable, UnknownJob, keyspace
from producer.job import JobStatus
from producer.policy import Policies
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.replies import texts
from tests.support.transitions import Q
from tests.support.workshop import Workshop


def test_async_is_the_same_as_sync(url: str, producer: Producer, policies: Policies) -> None:
    async def use() -> tuple[str, str, JobStatus, list[str]]:
        client = AsyncProducer.from_url(url, policies)
        try:
            job_id = await client.enqueue(chat(idempotency_key="k"))
            again = await client.enqueue(chat(idempotency_key="k"))
            receipts = await client.enqueue_many(chat(str(n)) for n in range(450))
            waited = await client.wait(job_id, timeout=0.05)
            with pytest.raises(UnknownJob):
                await client.fetch("nope")
            return job_id, again, waited.status, [receipt.outcome for receipt in receipts]
        finally:
            await client.close()

    job_id, again, status, outcomes = asyncio.run(use())
    assert job_id == again
    assert status is JobStatus.QUEUED
    assert outcomes == ["accepted"] * 450
    assert producer.enqueue(chat(idempotency_key="k")) == job_id


def test_a_web_app_waits_for_its_result(workshop: Workshop, url: str, policies: Policies) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.worker()

    async def ask() -> str:
        client = AsyncProducer.from_url(url, policies)
        try:
            return (await client.wait(await client.enqueue(chat("hi")), timeout=20)).text
        finally:
            await client.close()

    assert asyncio.run(ask()) == "You said: hi"


def test_enqueue_many_keeps_the_order_and_tells_conflicts(producer: Producer) -> None:
    jobs = [chat("a", idempotency_key="1"), chat("a", idempotency_key="1"), chat("b", idempotency_key="1"), chat("c")]
    receipts = producer.enqueue_many(jobs)
    assert [receipt.outcome for receipt in receipts] == ["accepted", "duplicate", "conflict", "accepted"]
    assert len({receipt.job_id for receipt in receipts}) == 2
    results = producer.fetch_many([receipts[0].job_id, "nope", receipts[3].job_id])
    assert [result and result.status for result in results] == [JobStatus.QUEUED, None, JobStatus.QUEUED]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "body"),
        ({"body": {"messages": []}}, "body.messages"),
        ({"body": {"messages": [{"role": "user"}]}, "tenant_id": "a b"}, "tenant_id"),
        ({"body": {"messages": [{"role": "user"}]}, "expires_after_seconds": -1}, "expires_after_seconds"),
        ({"body": {"messages": [{"role": "user"}]}, "prioriti": 1}, "prioriti"),
    ],
)
def test_a_wrong_job_names_its_field(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidJob) as error:
        LLMJob.parse(fields)
    assert error.value.field == field


def test_an_unknown_job_type_is_refused_at_the_door(producer: Producer) -> None:
    with pytest.raises(InvalidJob, match="draft_emial"):
        producer.enqueue(chat(job_type="draft_emial"))


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.mark.server  # one that never answers
@pytest.mark.timeout(20)
def test_a_redis_that_does_not_answer_is_told_and_does_not_hang(black_hole: str, policies: Policies) -> None:
    with pytest.raises(ServiceUnavailable, match="try again"):
        Producer.from_url(black_hole, policies).enqueue(chat())
    with pytest.raises(ServiceUnavailable):
        Producer.from_url("redis://127.0.0.1:9/0", policies).enqueue(chat())
    with pytest.raises(ServiceUnavailable):
        asyncio.run(AsyncProducer.from_url(black_hole, policies).enqueue(chat()))


def test_what_a_web_app_imports_stays_light() -> None:
    """The producer brings no HTTP client, no RQ, no breaker into a web app."""
    names = "('rq', 'httpx', 'aiohttp', 'tenacity', 'rich')"
    script = f"from producer import *; import sys; print([m for m in {names} if m in sys.modules])"
    heavy = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert heavy.stdout.strip() == "[]"


def test_one_asyncio_producer_works_on_several_event_loops(url: str, client: redis.Redis, policies: Policies) -> None:
    producer, before = AsyncProducer.from_url(url, policies), len(client.client_list())
    job_ids = [asyncio.run(producer.enqueue(chat(str(number)))) for number in range(4)]
    assert len(asyncio.run(producer.fetch_many(job_ids))) == 4
    assert texts(client.lrange(keyspace.queue(Q), 0, -1)) == job_ids

    async def twice() -> list[str]:
        one, two = await asyncio.gather(
            asyncio.to_thread(asyncio.run, producer.enqueue(chat("thread"))), producer.enqueue(chat("here"))
        )
        await producer.close()
        return [one, two]

    both = asyncio.run(twice())
    assert sorted(texts(client.lrange(keyspace.queue(Q), 4, -1))) == sorted(both)
    asyncio.run(producer.ended(both))
    gc.collect()
    until(lambda: len(client.client_list()) <= before + 1, "the connections of closed loops are closed")
