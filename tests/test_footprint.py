"""What a finished job keeps in Redis: few bytes, and all that RQ's tools and ours read of it."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from pydantic_core import to_json
from rq.job import Job

from bench.footprint import MOST_BYTES, by_key, english, letters
from producer import JobResult, Producer, keyspace
from producer.errors import IdempotencyConflict
from producer.job import LLM_JOB, JobStatus
from producer.results import DONE_DATA, encode_result, result_of
from producer.trail import Attempt, Planned
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.transitions import Q, claim, settle
from worker.queue.outcomes import Done
from worker.queue.transitions import Settled

ROUTE = "openai/gpt-4o-mini"
ANSWER_BYTES = 1000


def completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 15, "completion_tokens": 256, "total_tokens": 271}
    head = {"id": "chatcmpl-2", "object": "chat.completion", "created": 1795868711, "model": "gpt-4o-mini"}
    return {**head, "choices": [choice], "usage": usage}


def result(job_id: str, text: str) -> JobResult:
    answer = completion(text)
    attempt = Attempt(
        execution=1, route=ROUTE, tier="hot", outcome="ok", ms=1412, at_ms=1795868711937, prompt_tokens=15,
        completion_tokens=256, cost_usd=0.000156,
    )  # fmt: skip
    return JobResult(
        job_id=job_id, status=JobStatus.DONE, completion=answer, route=ROUTE, provider="openai", model="gpt-4o-mini",
        tier="hot", attempts=1, usage=answer["usage"], cost_usd=0.000156, baseline_cost_usd=0.000156,
        cost_delta_usd=0.0, queue_latency_ms=1100, run_ms=1426, resolved_by="model",
        trail=[Planned(execution=1, order="listed", candidates=(ROUTE,), baseline=ROUTE), attempt],
    )  # fmt: skip


@pytest.mark.parametrize("text_of", [english, letters])
def test_a_finished_job_keeps_few_bytes(producer: Producer, client: redis.Redis, text_of: Any) -> None:
    size = ANSWER_BYTES - len(to_json(completion("")))
    ids = [producer.enqueue(chat(f"Summarise call {number}.")) for number in range(50)]
    for held in claim(client, 50):
        wanted = result(held.job_id, text_of(size))
        assert settle(client, held, Done(wanted, keep_seconds=100)) is Settled.COMMITTED
        assert producer.fetch(held.job_id) == wanted
    assert sum(by_key(client, ids).values()) <= MOST_BYTES
    assert not client.exists("failover:scratch")


def test_rqs_tools_read_a_finished_job(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat("the prompt"))
    (held,) = claim(client)
    waiting = Job.fetch(job_id, connection=client, serializer="json")
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(waiting.latest_result, timeout=10)
        until(lambda: client.info("clients")["blocked_clients"] == 1, "RQ waits for the result")
        settle(client, held, Done(result(job_id, "answer"), keep_seconds=100))
        arrived = blocked.result(10)
    assert arrived is not None
    job = Job.fetch(job_id, connection=client, serializer="json")
    for value in (job.return_value(), arrived.return_value):
        assert value == {"job_id": job_id, "status": "done", "route": ROUTE, "completion": completion("answer")}
    assert (job.func_name, job.origin, job.description) == (LLM_JOB, Q, "default for default")
    assert job.get_status() == "finished"
    assert job.created_at <= job.enqueued_at <= job.started_at <= job.ended_at  # type: ignore[operator]
    assert job.results()[0].return_value == job.return_value()
    assert client.hget(keyspace.job(job_id), "data") == DONE_DATA
    assert client.ttl(keyspace.job(job_id)) == client.ttl(keyspace.results(job_id)) == 100


def test_a_resend_of_a_submission_without_a_key_is_recognised(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat("a"), job_id="mine")
    assert producer.enqueue(chat("a"), job_id="mine") == job_id
    (held,) = claim(client, 9)
    settle(client, held, Done(result(job_id, "answer"), keep_seconds=100))
    assert producer.enqueue(chat("a"), job_id="mine") == job_id
    with pytest.raises(IdempotencyConflict):
        producer.enqueue(chat("another"), job_id="mine")
    assert client.llen(keyspace.queue(Q)) == 0
    assert not client.keys("failover:idempotency:*")


def test_results_of_an_older_release_are_read() -> None:
    wanted = result("a", "answer")
    older = base64.b64encode(wanted.model_dump_json(exclude_none=True).encode())
    fields = [b"finished", *[None] * 9]
    assert result_of("a", fields, [(b"1-0", {b"return_value": older})]) == wanted


def test_the_words_of_stored_results_never_change() -> None:
    """An entry of an earlier run: with other words no result in Redis could be read any more."""
    wanted = result("a", "answer")
    value, _ = encode_result(wanted)
    more = bytes.fromhex(
        "aba66d1a33c5ee145333f46466646e88252580d4e14c0b204962538321a85c842508431323b36198264c0c8d909385a9859985b9a1a1a5b1396602c1"
        "132d98a10c4c2500"
    )
    fields = [b"finished", *[None] * 9]
    assert result_of("a", fields, [(b"1-0", {b"return_value": value, b"more": more})]) == wanted
