"""Where telemetry goes, by the variables of OpenTelemetry, Langfuse and Helicone, wrong ones among them; and the trace context
that a request brings."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.job import encode_job
from producer.telemetry.context import SpanContext, carried, parse
from producer.telemetry.recorder import Recorder
from producer.telemetry.settings import CONTENT, Sampling, Settings
from producer.trail import Attempt
from tests.support.collector import Collector, collecting, facts
from tests.support.gateway import authority, connect_proxy
from tests.support.jobs import chat
from tests.support.polling import until
from worker.events import Event, EventKind, Hooks
from worker.network import DIRECT, Network
from worker.routes.prices import Price
from worker.routes.route import Route
from worker.routes.schema import RouteEntry
from worker.telemetry.subscriber import subscribe

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}
VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ROUTE = Route(
    "openai/gpt",
    "hot",
    RouteEntry(provider="openai", model="gpt", base_url="https://x.example/v1", price=Price(input=1, output=2)),
    "https://x.example/v1",
)
COMPLETION = {
    "id": "c-1",
    "model": "gpt-2026",
    "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "an answer"}}],
}


def settings(**environment: str) -> Settings:
    found = Settings.of(environment)
    assert found is not None
    return found


@pytest.mark.parametrize("environment", [{}, {"OTEL_SERVICE_NAME": "x"}, {**HERE, "OTEL_SDK_DISABLED": "true"}])
def test_it_is_off(environment: dict[str, str]) -> None:
    assert Settings.of(environment) is None


@pytest.mark.parametrize(
    ("environment", "traces", "metrics"),
    [
        (HERE, "http://collector:4318/v1/traces", "http://collector:4318/v1/metrics"),
        ({**HERE, "OTEL_METRICS_EXPORTER": "none"}, "http://collector:4318/v1/traces", ""),
        ({**HERE, "OTEL_TRACES_EXPORTER": "none"}, "", "http://collector:4318/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/own"}, "http://t/own", ""),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m/own"}, "", "http://m/own"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://cloud.langfuse.com/api/public/otel"},
            "https://cloud.langfuse.com/api/public/otel/v1/traces",
            "",
        ),
    ],
)
def test_endpoints(environment: dict[str, str], traces: str, metrics: str) -> None:
    (destination,) = settings(**environment).destinations
    assert (destination.traces, destination.metrics) == (traces, metrics)


def test_the_other_variables_of_opentelemetry() -> None:
    found = settings(
        **HERE,
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Basic%20abc, x-two=2",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_TIMEOUT="3",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=prod,service.name=other,team=a%2Cb",
        OTEL_SERVICE_NAME="mine",
        OTEL_BSP_SCHEDULE_DELAY="250",
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.25",
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
        OTEL_SEMCONV_STABILITY_OPT_IN="gen_ai_latest_experimental",
        **{CONTENT: "true"},
    )
    (destination,) = found.destinations
    assert destination.headers == {"authorization": "Basic abc", "x-two": "2"}
    assert (destination.gzip, destination.timeout, found.delay) == (True, 3.0, 0.25)
    assert found.resource == {"deployment.environment.name": "prod", "service.name": "mine", "team": "a,b"}
    assert found.sampling == Sampling(0.25)
    assert (found.delta, found.older_names, found.content, found.problems) == (True, False, True, ())


@pytest.mark.parametrize(("said", "seconds"), [("10", 10.0), ("0.5", 0.5), ("2500", 2.5), ("10000", 10.0), ("", 10.0)])
def test_a_timeout_is_meant_in_milliseconds_or_in_seconds(said: str, seconds: float) -> None:
    (destination,) = settings(**HERE, OTEL_EXPORTER_OTLP_TIMEOUT=said).destinations
    assert destination.timeout == seconds


@pytest.mark.parametrize(
    "wrong",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:port"},
        {**HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {**HERE, "OTEL_BSP_SCHEDULE_DELAY": "soon"},
        {**HERE, "OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
        {**HERE, "OTEL_EXPORTER_OTLP_TIMEOUT": "nan"},
        {**HERE, "OTEL_TRACES_SAMPLER": "jaeger_remote"},
        {**HERE, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
        {"LANGFUSE_PUBLIC_KEY": "pk"},
    ],
)
def test_a_wrong_variable_is_told_and_the_rest_is_used(wrong: dict[str, str]) -> None:
    (problem,) = settings(**wrong).problems
    assert problem.partition(":")[0] in {*wrong, "OTLP"}


@pytest.mark.parametrize(
    ("sampling", "parent", "recorded"),
    [
        (Sampling(), None, True),
        (Sampling(), False, False),
        (Sampling(0.0), True, True),
        (Sampling(0.0), None, False),
        (Sampling(0.0, by_parent=False), True, False),
        (Sampling(0.5), None, False),  # of the id below, whose second half begins with ff
    ],
)
def test_sampling(sampling: Sampling, parent: bool | None, recorded: bool) -> None:
    assert sampling.of(b"\x00" * 8 + b"\xff" * 8, parent) is recorded


@pytest.mark.parametrize(
    "header",
    [
        None, "", "nonsense", VALID.upper(), f"ff{VALID[2:]}", f"{VALID}-x", f"{VALID}\n", f" {VALID}", VALID[:-1],
        f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01", f"01{VALID[2:]}-{'x' * 300}",
    ],
)  # fmt: skip
def test_what_is_no_traceparent_is_ignored(header: str | None) -> None:
    assert parse(header) is None
    assert carried({"a": "b"}, header) == {"a": "b"}


def test_a_traceparent_is_read_and_a_later_version_too() -> None:
    context = parse(VALID)
    assert context is not None
    assert (context.header, context.sampled) == (VALID, True)
    assert parse(f"cc{VALID[2:]}-what-follows") == context
    assert carried({"traceparent": "the job's own"}, VALID) == {"traceparent": "the job's own"}
    assert carried({}, VALID) == {"traceparent": VALID}


@given(trace_id=st.binary(min_size=16, max_size=16), span_id=st.binary(min_size=8, max_size=8), sampled=st.booleans())
def test_every_context_is_read_as_it_was_written(trace_id: bytes, span_id: bytes, sampled: bool) -> None:
    context = SpanContext(trace_id, span_id, sampled)
    assert parse(context.header) == (context if any(trace_id) and any(span_id) else None)


def tell(recorder: Recorder, outcome: str = "ok", text: str = "a question") -> None:
    """One execution, as a worker tells it."""
    hooks = Hooks()
    subscribe(hooks, recorder, lambda: (ROUTE,))
    attempt = Attempt(
        execution=1, route=ROUTE.name, tier="hot", outcome=outcome, status=None if outcome == "ok" else 503, ms=700,
        at_ms=1_793_000_000_500, prompt_tokens=10, completion_tokens=3, cost_usd=0.25,
    )  # fmt: skip
    whose = {"tenant_id": "acme", "user_id": "kira", "feature": "faq"}
    job = chat(text, job_type="mail", metadata={"traceparent": VALID}, **whose)
    told = {
        "queue": "q", "execution": 1, "lease": "j:e", "crashed_before": 0, "claimed_at": 1_793_000_000.0, "waited_ms": 5,
        "outcome": "done" if outcome == "ok" else "retry", "reason": "", "tenant": "acme", "user": "kira", "feature": "faq",
        "job_type": "mail", "route": ROUTE.name, "provider": "openai", "model": "gpt", "input_tokens": 10,
        "output_tokens": 3, "latency_ms": 705, "cost_usd": 0.25, "cache_hit": False, "traceparent": VALID,
        "attempts": [attempt], "completion": COMPLETION if outcome == "ok" else None, "data": encode_job(job).data,
    }  # fmt: skip
    hooks.emit(Event(EventKind.EXECUTED, "j", told, 1_793_000_001.3))


def sent(collector: Collector, outcome: str = "ok", **environment: str) -> None:
    recorder = Recorder(settings(OTEL_BSP_SCHEDULE_DELAY="20", **environment), "test")
    tell(recorder, outcome)
    until(lambda: collector.taken, "it arrives")
    recorder.close(5)


def test_langfuse_gets_traces_at_its_endpoint_under_its_names() -> None:
    with collecting() as collector:
        keys = {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-2", "LANGFUSE_BASE_URL": collector.url}
        sent(collector, **keys, **{CONTENT: "true"})
        (request,) = collector.taken
        execution, call = collector.spans()
    assert request.path == "/api/public/otel/v1/traces"
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["authorization"] == f"Basic {base64.b64encode(b'pk-lf-1:sk-lf-2').decode()}"
    assert request.headers["x-langfuse-ingestion-version"] == "4"
    for span in (execution, call):
        told = facts(span)
        assert (told["langfuse.user.id"], told["langfuse.trace.name"]) == ("kira", "mail")
        assert told["langfuse.trace.tags"] == ["tenant:acme", "feature:faq"]
        assert (told["langfuse.trace.metadata.tenant_id"], told["langfuse.trace.metadata.feature"]) == ("acme", "faq")
    assert json.loads(facts(call)["langfuse.observation.cost_details"]) == {"total": 0.25}
    assert "a question" in facts(call)["langfuse.observation.input"]
    assert "an answer" in facts(call)["langfuse.observation.output"]


@pytest.mark.parametrize(("outcome", "status", "content"), [("ok", 200, "true"), ("unavailable", 503, "false")])
def test_helicone_gets_each_call_as_its_manual_logger_takes_it(outcome: str, status: int, content: str) -> None:
    with collecting() as collector:
        keys = {"HELICONE_API_KEY": "sk-helicone-1", "HELICONE_LOG_URL": f"{collector.url}/custom/v1/log"}
        sent(collector, outcome, **keys, **{CONTENT: content})
        (request,), (log,) = collector.taken, collector.logged()
    assert (request.path, request.headers["authorization"]) == ("/custom/v1/log", "Bearer sk-helicone-1")
    asked, answered = log["providerRequest"], log["providerResponse"]
    assert (asked["url"], asked["json"]["model"]) == ("custom-model-nopath", "gpt")
    assert asked["meta"] == {
        "Helicone-Session-Id": VALID[3:35],
        "Helicone-User-Id": "kira",
        "Helicone-Property-tenant_id": "acme",
        "Helicone-Property-feature": "faq",
        "Helicone-Property-route": "openai/gpt",
        "Helicone-Property-job_type": "mail",
        "Helicone-Property-provider": "openai",
        "Helicone-Property-cost_usd": "0.25",
        **({} if outcome == "ok" else {"Helicone-Property-error.type": outcome}),
    }
    assert answered["status"] == status
    assert answered["json"]["usage"] == {"prompt_tokens": 10, "completion_tokens": 3}
    assert ("a question" in json.dumps(asked), "an answer" in json.dumps(answered)) == ((content == "true"),) * 2
    assert log["timing"] == {
        "startTime": {"seconds": 1_793_000_000, "milliseconds": 500},
        "endTime": {"seconds": 1_793_000_001, "milliseconds": 200},
    }


def test_a_collector_of_metrics_alone_is_sent_no_span(caplog: pytest.LogCaptureFixture) -> None:
    with collecting() as collector:
        own = {"OTEL_EXPORTER_OTLP_METRICS_HEADERS": "x-key=m", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=all"}
        environment = {**own, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{collector.url}/v1/metrics"}
        recorder = Recorder(settings(**environment, OTEL_METRIC_EXPORT_INTERVAL="20"), "test")
        tell(recorder)
        until(lambda: collector.metrics(), "they arrive")
        recorder.close(5)
        assert {(request.path, request.headers["x-key"]) for request in collector.asked} == {("/v1/metrics", "m")}
    assert caplog.records == []


def test_several_destinations_get_the_same_and_gzip_is_spoken() -> None:
    with collecting() as one, collecting() as another:
        langfuse = {"LANGFUSE_PUBLIC_KEY": "a", "LANGFUSE_SECRET_KEY": "b", "LANGFUSE_BASE_URL": another.url}
        sent(one, OTEL_EXPORTER_OTLP_ENDPOINT=one.url, OTEL_EXPORTER_OTLP_COMPRESSION="gzip", **langfuse)
        until(lambda: another.taken, "the other has it too")
        assert one.asked[0].headers["content-encoding"] == "gzip"
        assert one.spans() == another.spans() != []


def test_a_collector_behind_a_companys_authority_and_proxy(tmp_path: Path) -> None:
    own = authority(tmp_path)
    with collecting(own.server) as collector, connect_proxy() as proxy:
        network = Network.of({"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(own.file)})
        for certificate in ({}, {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(own.file)}):
            environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "20", **certificate}
            recorder = Recorder(settings(**environment), "test", DIRECT.options if certificate else network.options)
            tell(recorder)
            until(lambda: collector.taken, "it arrives")
            recorder.close(5)
            collector.taken.clear()
        assert len(proxy.asked) == 1


def test_a_certificate_that_cannot_be_read_is_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    environment = {**HERE, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "none.pem")}
    recorder = Recorder(settings(**environment), "test")
    tell(recorder)
    recorder.close(5)
    assert [record.message for record in caplog.records] == [
        "telemetry: something cannot be used",
        "telemetry was dropped",
    ]


def test_without_the_extra_it_is_off_and_says_what_to_install() -> None:
    script = """
import sys
sys.modules["opentelemetry.proto"] = None
from producer import telemetry
telemetry.start({"HELICONE_API_KEY": "sk"}, "x", tell=print)
assert telemetry.current() is None
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'failover-worker[otel]'" in done.stdout


def test_no_key_is_in_what_people_see() -> None:
    keys = {"LANGFUSE_PUBLIC_KEY": "pk-1", "LANGFUSE_SECRET_KEY": "sk-2", "HELICONE_API_KEY": "sk-3"}
    found = settings(**HERE, OTEL_EXPORTER_OTLP_HEADERS="authorization=sk-4", **keys)
    assert len(found.destinations) == 3
    assert not any(secret in repr(found) for secret in ("sk-2", "sk-3", "sk-4", "Basic", "Bearer"))
