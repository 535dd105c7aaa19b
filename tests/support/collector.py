"""A collector of OpenTelemetry for tests: a real HTTP server that decodes what it is sent, and misbehaves on request."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.polling import until


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Collector:
    """`status`, `delay` (seconds): of the next answers. `asked`: every request."""

    url: str = ""
    status: int = 200
    delay: float = 0.0
    asked: list[Request] = field(default_factory=list)
    taken: list[Request] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """For a process that sends its telemetry here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def traces(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(each.body) for each in self.taken if "traces" in each.path]

    def spans(self) -> list[Span]:
        """By their begin."""
        found = [
            span
            for request in self.traces()
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def wait(self, count: int, name: str = "") -> list[Span]:
        """At least so many spans whose name begins so."""
        found: list[Span] = []

        def there() -> bool:
            found[:] = [span for span in self.spans() if span.name.startswith(name)]
            return len(found) >= count

        until(there, f"{count} spans {name}")
        return found

    def metrics(self) -> dict[str, Metric]:
        """The newest of each name."""
        bodies = [each.body for each in self.taken if "metrics" in each.path]
        return {
            metric.name: metric
            for body in bodies
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def logged(self) -> list[dict[str, Any]]:
        """What came as JSON."""
        return [json.loads(each.body) for each in self.taken if each.headers["content-type"] == "application/json"]


def facts(described: Any) -> dict[str, Any]:
    """The attributes of a span, a link, a resource or a point of a metric."""

    def value(any_value: Any) -> Any:
        kind = any_value.WhichOneof("value")
        return (
            [value(each) for each in any_value.array_value.values]
            if kind == "array_value"
            else getattr(any_value, kind)
        )

    return {each.key: value(each.value) for each in described.attributes}


@contextlib.contextmanager
def collecting(tls: ssl.SSLContext | None = None) -> Iterator[Collector]:
    """A collector on a free port; with `tls`, by https."""
    collector = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            collector.asked.append(request)
            time.sleep(collector.delay)
            if collector.status == 200:
                collector.taken.append(request)
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        collector.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield collector
        server.shutdown()
