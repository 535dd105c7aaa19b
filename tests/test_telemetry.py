"""Traces and metrics at a real collector: a job over failovers, a retry and a killed worker; and a collector that is dead, slow,
or refuses."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from producer import Producer, keyspace, telemetry
from producer.job import JobStatus, LLMJob, decode_job
from producer.telemetry.recorder import Recorder
from producer.telemetry.settings import Settings
from producer.telemetry.spans import place
from tests.support.collector import Collector, collecting, facts
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.transitions import Q, expire_leases
from tests.support.web import BODY, served
from tests.support.workshop import Workshop

TAGS = {"tenant_id": "acme", "user_id": "kira", "feature": "faq", "cache_hit": False}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def recorded(collector: Collector) -> Iterator[Collector]:
    """This process records."""
    telemetry.start(collector.environment, "app")
    yield collector
    telemetry.stop()


def for_acme(text: str = "a secret question", **fields: Any) -> LLMJob:
    return chat(text, tenant_id="acme", user_id="kira", feature="faq", **fields)


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name.startswith(name)]


def links(span: Span) -> list[tuple[bytes, str]]:
    return [(link.span_id, facts(link)["failover.link"]) for link in span.links]


def test_a_trace_holds_a_job_over_failovers_a_retry_and_a_killed_worker(
    workshop: Workshop, producer: Producer, client: redis.Redis, recorded: Collector
) -> None:
    upstreams = ("a", "b", "c")
    workshop.routes(hot=[{"upstream": "a", "retries": 0}], warm=[{"upstream": "b"}, {"upstream": "c", "retries": 0}])
    workshop.policy(executions=5, backoff_seconds={"first": 0.1, "max": 0.2})
    for upstream in upstreams:
        workshop.providers.behave(upstream, status=500, times=2 if upstream == "b" else 1)
    first = workshop.worker(**recorded.environment)
    job_id = producer.enqueue(for_acme())
    recorded.wait(1, "process")
    for upstream in upstreams:  # the second execution never ends: its worker is killed
        workshop.providers.behave(upstream, fault="hang")
    until(lambda: workshop.providers.account("a")["in_flight"] == 1, "the second execution calls")
    first.send_signal(signal.SIGKILL)
    first.wait()
    for upstream in upstreams:
        workshop.providers.behave(upstream, status=503 if upstream != "c" else 200)
    expire_leases(client)
    workshop.worker(**recorded.environment)
    assert producer.wait(job_id, 30).status is JobStatus.DONE

    recorded.wait(3, "process")
    spans = recorded.spans()
    (sent,) = named(spans, f"send {Q}")
    executions = {facts(span)["failover.execution"]: span for span in named(spans, f"process {Q}")}
    assert {span.trace_id for span in spans} == {sent.trace_id}
    assert (sent.kind, sent.parent_span_id) == (Span.SPAN_KIND_PRODUCER, b"")
    assert sorted(executions) == [1, 2, 3]
    assert {(span.kind, span.parent_span_id) for span in executions.values()} == {
        (Span.SPAN_KIND_CONSUMER, sent.span_id)
    }
    assert [facts(executions[number])["failover.outcome"] for number in (1, 2, 3)] == ["retry", "crashed", "done"]
    assert [executions[number].status.code for number in (1, 2, 3)] == [Status.STATUS_CODE_ERROR] * 2 + [0]
    assert links(executions[1]) == []
    assert links(executions[2]) == [(executions[1].span_id, "next execution")]
    assert links(executions[3]) == [(executions[2].span_id, "next execution")]

    calls = {
        number: [each for each in named(spans, "chat") if each.parent_span_id == span.span_id]
        for number, span in executions.items()
    }
    assert sum(map(len, calls.values())) == len(named(spans, "chat"))  # no call without its execution
    assert [facts(span)["failover.route"] for span in calls[1]] == ["a/a-1", "b/b-1", "b/b-1", "c/c-1"]
    ids = [span.span_id for span in calls[1]]
    told = [links(span) for span in calls[1]]
    assert told == [[], [(ids[0], "failover")], [(ids[1], "retry")], [(ids[2], "failover")]]
    assert [facts(span)["error.type"] for span in calls[1]] == ["server_error"] * 4
    assert calls[2] == []
    answered = calls[3][-1]
    assert facts(answered)["failover.route"] == "c/c-1"
    assert (answered.status.code, "error.type" in facts(answered)) == (0, False)
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
    assert all(TAGS.items() <= facts(span).items() for span in [*calls[1], *calls[3], executions[1], executions[3]])
    assert b"secret" not in b"".join(request.body for request in recorded.asked)


@pytest.fixture
def working(workshop: Workshop) -> Workshop:
    """One route with a price."""
    workshop.routes(hot=[{"upstream": "a", "provider": "google", "price": {"input": 1, "output": 2}}])
    workshop.policy()
    return workshop


def test_a_call_is_described_as_the_conventions_say(working: Workshop, producer: Producer, recorded: Collector) -> None:
    working.worker(**recorded.environment)
    result = producer.wait(producer.enqueue(for_acme()), 30)
    (call,) = recorded.wait(1, "chat a-1")
    (execution,) = recorded.wait(1, "process")
    assert result.usage is not None
    tokens = {"input_tokens": result.usage["prompt_tokens"], "output_tokens": result.usage["completion_tokens"]}
    assert call.kind == Span.SPAN_KIND_CLIENT
    told = facts(call)
    address = working.providers.url.removeprefix("http://")
    assert f"{told.pop('server.address')}:{told.pop('server.port')}" == address
    assert told.pop("latency_ms") >= 0
    assert told == {
        **TAGS,
        **tokens,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "a-1",
        "gen_ai.response.model": "a-1",
        "gen_ai.response.id": (result.completion or {})["id"],
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": tokens["input_tokens"],
        "gen_ai.usage.output_tokens": tokens["output_tokens"],
        "provider": "google",
        "model": "a-1",
        "cost_usd": result.cost_usd,
        "failover.route": "google/a-1",
        "failover.tier": "hot",
        "failover.job_type": "default",
    }
    of_job = {**TAGS, **tokens, "provider": "google", "model": "a-1", "cost_usd": result.cost_usd}
    assert of_job.items() <= facts(execution).items()
    assert facts(execution)["messaging.message.id"] == result.job_id


def test_metrics_count_calls_and_tokens(working: Workshop, producer: Producer, collector: Collector) -> None:
    working.providers.behave("a", status=500, times=1)
    working.worker(**collector.environment, OTEL_METRIC_EXPORT_INTERVAL="50")
    for _ in range(3):
        result = producer.wait(producer.enqueue(for_acme()), 30)
    assert result.usage is not None

    def points(name: str) -> list[Any]:
        metric = collector.metrics().get(name)
        return [*metric.histogram.data_points, *metric.sum.data_points] if metric is not None else []

    def counted() -> bool:
        return bool(sum(point.count for point in points("gen_ai.client.inference.duration")) == 4)

    until(counted, "four calls are counted")
    by_error = {facts(point).get("error.type"): point.count for point in points("gen_ai.client.inference.duration")}
    assert by_error == {"server_error": 1, None: 3}
    (used,) = points("gen_ai.client.inference.usage.output_tokens")
    assert used.as_int == 3 * result.usage["completion_tokens"]
    assert facts(used)["gen_ai.token.modality"] == "unknown"
    assert {facts(point)["gen_ai.token.type"] for point in points("gen_ai.client.token.usage")} == {"input", "output"}
    assert sum(point.count for point in points("gen_ai.client.operation.duration")) == 4


@pytest.mark.parametrize("door", ["/jobs", "/v1/chat/completions"])
def test_a_request_over_http_continues_its_callers_trace(door: str, working: Workshop, collector: Collector) -> None:
    working.worker(**collector.environment)
    body = {**BODY["body"], "model": "default"} if door.startswith("/v1") else BODY
    with served(working, **collector.environment) as web:
        assert web.post(door, json=body, headers={"traceparent": PARENT, "Prefer": "wait=20"}).status_code == 200
        (sent,) = collector.wait(1, "send")
        (execution,) = collector.wait(1, "process")
    assert sent.trace_id.hex() == execution.trace_id.hex() == PARENT[3:35]
    assert (sent.parent_span_id.hex(), execution.parent_span_id) == (PARENT[36:52], sent.span_id)


def test_a_trace_that_its_caller_does_not_record_is_not_recorded(
    working: Workshop, producer: Producer, recorded: Collector
) -> None:
    working.worker(**recorded.environment)
    silent = producer.enqueue(for_acme(metadata={"traceparent": PARENT[:-1] + "0"}))
    told = producer.enqueue(for_acme())
    assert producer.wait(silent, 30).status is producer.wait(told, 30).status is JobStatus.DONE
    recorded.wait(1, "process")
    assert {facts(span).get("messaging.message.id") for span in recorded.spans()} <= {told, None}


def test_a_worker_traces_jobs_of_producers_that_record_nothing(
    working: Workshop, producer: Producer, collector: Collector
) -> None:
    working.worker(**collector.environment)
    job_id = producer.enqueue(for_acme(metadata={"traceparent": "nonsense"}))
    assert producer.wait(job_id, 30).status is JobStatus.DONE
    (execution,) = collector.wait(1, "process")
    (call,) = collector.wait(1, "chat")
    assert execution.parent_span_id == b""
    assert (call.trace_id, call.parent_span_id) == (execution.trace_id, execution.span_id)


def test_content_is_told_only_when_asked_for(working: Workshop, producer: Producer, recorded: Collector) -> None:
    working.worker(**recorded.environment, OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="true")
    result = producer.wait(producer.enqueue(for_acme()), 30)
    (call,) = recorded.wait(1, "chat")
    assert "a secret question" in facts(call)["gen_ai.input.messages"]
    assert result.text in facts(call)["gen_ai.output.messages"]


@pytest.mark.parametrize("trouble", ["dead", "slow", "unauthorized", "wrong path", "no url"])
def test_no_collector_keeps_a_job_waiting_and_its_failure_is_said_once(
    trouble: str, working: Workshop, producer: Producer, collector: Collector
) -> None:
    environment = dict(collector.environment)
    match trouble:
        case "dead":
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1"
        case "slow":
            collector.delay = 30.0
        case "unauthorized":
            collector.status = 401
        case "wrong path":
            collector.status = 404
        case "no url":
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "localhost:4318"
    worker = working.worker(**environment, OTEL_EXPORTER_OTLP_TIMEOUT="0.5", OTEL_BSP_MAX_QUEUE_SIZE="8")
    jobs = [producer.enqueue(for_acme(str(number))) for number in range(40)]
    assert {producer.wait(job_id, 30).status for job_id in jobs} == {JobStatus.DONE}
    if trouble == "no url":
        assert len(working.events(worker, "telemetry: something cannot be used")) == 1
        return
    said = until(lambda: working.events(worker, "telemetry is not taken; jobs are not affected"), "it is said")
    assert producer.wait(producer.enqueue(for_acme()), 30).status is JobStatus.DONE
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert len(said) == len(working.events(worker, "telemetry is not taken; jobs are not affected")) == 1
    assert len(working.events(worker, "telemetry is dropped: spans come faster than they are taken")) <= 1
    (dropped,) = working.events(worker, "telemetry was dropped")
    assert dropped["spans"] > 0
    assert "Traceback" not in working.log(worker)


def filled(recorder: Recorder, count: int) -> None:
    for number in range(count):
        span = Span()
        place(span, b"t" * 16, number.to_bytes(8, "big"), b"", 1, 2)
        recorder.put(span)


def test_a_collector_that_comes_back_gets_what_there_was_room_for(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "failover.telemetry")
    collector.status = 503
    environment = {**collector.environment, "OTEL_BSP_MAX_QUEUE_SIZE": "6", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
    settings = Settings.of(environment)
    assert settings is not None
    recorder = Recorder(settings, "test")
    filled(recorder, 10)
    refused = "telemetry is not taken; jobs are not affected"
    until(lambda: refused in [record.message for record in caplog.records], "it was refused")
    collector.status = 200
    until(lambda: len(collector.spans()) == 6, "six of ten were kept")
    recorder.close(5)
    said = [record.message for record in caplog.records]
    full = "telemetry is dropped: spans come faster than they are taken"  # before or after the first refusal
    assert [message for message in said if message != full] == [
        refused,
        "telemetry is taken again",
        "telemetry was dropped",
    ]
    assert said.count(full) == 1
    assert vars(caplog.records[-1])["spans"] == 4


def test_without_a_variable_nothing_of_it_is_loaded() -> None:
    script = """
import sys
from producer import telemetry
telemetry.start({"REDIS_URL": "redis://localhost"}, "x")
import worker.worker, worker.cli, producer.client
assert telemetry.current() is None
print(*(name for name in sys.modules if name.startswith(("opentelemetry.proto", "google", "worker.telemetry"))))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_job_carries_its_trace_where_any_release_can_read_it(
    producer: Producer, client: redis.Redis, recorded: Collector
) -> None:
    job_id = producer.enqueue(chat("x", metadata={"mine": "kept"}))
    (sent,) = recorded.wait(1, "send")
    data = client.hget(keyspace.job(job_id), "data")
    assert isinstance(data, bytes)
    job = decode_job(data)
    assert job.schema_version == 1
    assert job.metadata == {"mine": "kept", "traceparent": f"00-{sent.trace_id.hex()}-{sent.span_id.hex()}-01"}
