"""What one process records, and where it goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from uuid import uuid4

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from producer.telemetry import helicone
from producer.telemetry.delivery import Bodies, Delivery, Options
from producer.telemetry.settings import Settings
from producer.telemetry.spans import Batch, Frame, put, resource_of

MOST_CONTENT = 4_000_000  # characters of prompts and answers in one request


class Recorder:
    """Spans come in, requests go out. `service`: the name of this program, unless the environment says another. `options`: what a
    client of httpx needs for calls to a URL."""

    def __init__(self, settings: Settings, service: str, options: Options = lambda _url: {}) -> None:
        self.settings, self._options = settings, options
        try:
            release = version("failover-worker")
        except PackageNotFoundError:
            release = ""
        ours = {"service.name": service, "service.version": release, "service.instance.id": uuid4().hex}
        sdk = {"telemetry.sdk.name": "failover-worker", "telemetry.sdk.language": "python"}
        self.resource = resource_of({**ours, **settings.resource, **sdk, "telemetry.sdk.version": release}.items())
        self.scope = InstrumentationScope(name="failover-worker", version=release)
        self._frame = Frame(self.resource, self.scope)
        self.metrics: Callable[[], bytes] = bytes  # the body of a request; b"" while there are none
        self.begin()

    def begin(self) -> None:
        """Also in a forked process: the threads stayed behind."""
        self._lock = threading.Lock()
        self._batch = Batch(self._frame)
        forms: dict[str, Bodies] = {"otlp": _otlp, "helicone": helicone.bodies}
        self._deliveries = [
            Delivery(each, self.settings, self._options, forms[each.form], self.flush, lambda: self.metrics())
            for each in self.settings.destinations
        ]

    def put(self, span: Span, content: int = 0) -> None:
        """Take a span that is complete; it never waits for a receiver. `content`: characters of prompt and answer in it."""
        encoded = span.SerializeToString()
        with self._lock:
            self._batch.spans.append(encoded)
            self._batch.content += content
            if len(self._batch) >= self.settings.batch or self._batch.content >= MOST_CONTENT:
                self._hand_over()

    def flush(self) -> None:
        """Hand over what there is."""
        with self._lock:
            if len(self._batch):
                self._hand_over()

    def _hand_over(self) -> None:
        full, self._batch = self._batch, Batch(self._frame)
        for delivery in self._deliveries:
            delivery.put(full)

    @property
    def waiting(self) -> int:
        """Spans in full batches that some destination has not got yet."""
        return max((delivery.waiting for delivery in self._deliveries), default=0)

    def close(self, seconds: float) -> None:
        """Send what waits, to each destination for at most its part of so long."""
        self.flush()
        for delivery in self._deliveries:
            delivery.ask_to_close()
        for delivery in self._deliveries:
            delivery.close(seconds / len(self._deliveries))

    def tag(self, span: Span, tenant: str, feature: str, job_type: str) -> None:
        """Whom and what the span is for: the tags that every request bears. Langfuse filters by its own names alone."""
        attributes = span.attributes
        put(attributes, "tenant_id", tenant)
        put(attributes, "feature", feature)
        put(attributes, "failover.job_type", job_type)
        if self.settings.langfuse:
            tags = [f"{name}:{value}" for name, value in (("tenant", tenant), ("feature", feature)) if value]
            put(attributes, "langfuse.trace.name", job_type)
            put(attributes, "langfuse.trace.tags", tags)
            put(attributes, "langfuse.trace.metadata.tenant_id", tenant)
            put(attributes, "langfuse.trace.metadata.feature", feature)


def _otlp(batch: Batch) -> Iterator[bytes]:
    yield batch.body()
