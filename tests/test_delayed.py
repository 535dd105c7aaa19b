"""Jobs with `not_before`: they wait in RQ's schedule until their time, and count as accepted then."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import redis

from producer import JobStatus, Producer, keyspace
from producer.errors import InvalidJob
from producer.job import LLMJob
from producer.waiting import WaitReason
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.web import BODY
from tests.support.workshop import Workshop


def redis_now(client: redis.Redis) -> float:
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


def test_a_delayed_job_runs_at_its_time_and_not_before(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.worker()
    at = redis_now(producer.client) + 1.5
    job_id = producer.enqueue(chat(not_before=at))
    waiting = producer.fetch(job_id)
    assert (waiting.status, waiting.waiting_reason) == (JobStatus.QUEUED, WaitReason.NOT_BEFORE)
    assert waiting.waiting_until_ms == int(at * 1000)
    until(lambda: producer.fetch(job_id).status is JobStatus.DONE, "the job runs")
    done = producer.fetch(job_id)
    assert done.attempted[0].at_ms >= at * 1000 and done.waiting_for is None
    assert done.queue_latency_ms is not None and done.queue_latency_ms < 30_000  # from its time on


def test_the_times_of_a_delayed_job_begin_at_its_time(producer: Producer, client: redis.Redis) -> None:
    at = redis_now(client) + 3600
    plain = producer.enqueue(chat(expires_after_seconds=60))
    delayed = producer.enqueue(chat(expires_after_seconds=60, not_before=at))
    now_ms, at_ms = (client.zscore(keyspace.accepted("ai-tasks"), job_id) for job_id in (plain, delayed))
    assert now_ms is not None and at_ms is not None and 3_500_000 < at_ms - now_ms < 3_700_000
    assert client.zscore(keyspace.scheduled("ai-tasks"), delayed) == pytest.approx(at, abs=0.01)
    assert client.lrange(keyspace.queue("ai-tasks"), 0, -1) == [plain.encode()]
    stored = json.dumps(str(client.hgetall(keyspace.job(delayed))))
    assert "not_before" in stored and client.hget(keyspace.job(delayed), "status") == b"scheduled"


def test_a_delayed_job_is_accepted_once_and_can_be_cancelled(producer: Producer, client: redis.Redis) -> None:
    job = chat(not_before=redis_now(client) + 3600, idempotency_key="k")
    first = producer.enqueue(job)
    assert producer.enqueue(job) == first and not any(producer.ended([first]))
    producer.cancel(first, who="me")
    assert producer.fetch(first).status is JobStatus.CANCELLED
    assert client.zcard(keyspace.scheduled("ai-tasks")) == client.zcard(keyspace.accepted("ai-tasks")) == 0


def test_a_time_that_has_passed_is_now(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat(not_before=1.0))
    assert client.lrange(keyspace.queue("ai-tasks"), 0, -1) == [job_id.encode()]
    assert producer.fetch(job_id).waiting_for is None


def test_times_are_read_with_their_zone() -> None:
    noon = datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()
    for given in ("2026-12-01T12:00:00Z", "2026-12-01T13:00+01:00", noon, datetime(2026, 12, 1, 12, tzinfo=UTC)):
        assert LLMJob.parse({**BODY, "not_before": given}).not_before == noon


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("2026-12-01T12:00:00", "has no time zone"),
        ("tomorrow", "ISO 8601"),
        (True, "should be a number"),
        (-5, "greater than 0"),
    ],
)
def test_a_time_that_cannot_be_read_is_told(given: Any, what: str) -> None:
    with pytest.raises(InvalidJob, match=f"not_before.*{what}"):
        LLMJob.parse({**BODY, "not_before": given})


def test_a_time_more_than_a_year_away_is_refused(producer: Producer, client: redis.Redis) -> None:
    with pytest.raises(InvalidJob, match="not_before: is more than 366 days away"):
        producer.enqueue(chat(not_before=redis_now(client) + 400 * 86400))
    assert client.dbsize() == 0


def test_http_and_the_command_take_it_too(web: httpx.Client, workshop: Workshop, producer: Producer) -> None:
    at = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    answer = web.post("/jobs", json={**BODY, "not_before": at})
    assert answer.status_code == 202
    assert producer.fetch(answer.json()["job_id"]).waiting_reason is WaitReason.NOT_BEFORE
    refused = web.post("/jobs", json={**BODY, "not_before": "2026-12-01T12:00:00"})
    assert refused.status_code == 422 and "not_before" in refused.text
    submitted = workshop.run("failover", "submit", "--prompt", "hi", "--not-before", "90m")
    why = workshop.run("failover", "job", "why", submitted.stdout.strip())
    assert why.stdout.startswith("queued: waits for its time, 2")
