"""Spans as messages of OTLP, and batches of them. Only this folder and worker/telemetry/ import OpenTelemetry, and only while
telemetry is on.

The messages are filled by hand and sent as they are: with the spans of OpenTelemetry's SDK, which are turned into messages
later, each would take ten times the CPU (docs/telemetry.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

SEND, PROCESS, CALL = Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER, Span.SPAN_KIND_CLIENT
Value = str | bool | int | float | Sequence[str] | None


class Batch:
    """Spans that go out in one request, each as it is sent: as messages they would take five times the memory. `frame`: the
    request without spans. `content`: characters of prompts and answers in them."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self.spans: list[bytes] = []
        self.content = 0

    def __len__(self) -> int:
        return len(self.spans)

    def body(self) -> bytes:
        """The request of OTLP over HTTP (ExportTraceServiceRequest)."""
        return self._frame.around(self.spans)


class Frame:
    """What is the same around the spans of every request."""

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        self._resource = ResourceSpans(resource=resource).SerializeToString()
        self._scope = ScopeSpans(scope=scope).SerializeToString()

    def around(self, spans: Iterable[bytes]) -> bytes:
        """A message's field holds the length of what is in it, so this goes from the inside to the outside."""
        scoped = self._scope + b"".join([_field(ScopeSpans.SPANS_FIELD_NUMBER, span) for span in spans])
        whole = self._resource + _field(ResourceSpans.SCOPE_SPANS_FIELD_NUMBER, scoped)
        return _field(ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER, whole)


def _field(number: int, message: bytes) -> bytes:
    """A message as a field of another one, in protobuf's encoding: https://protobuf.dev/programming-guides/encoding/."""
    left, size = len(message), bytearray()
    while left > 127:
        size.append(left & 127 | 128)
        left >>= 7
    return bytes((number << 3 | 2, *size, left)) + message


def copy_of(like: Span) -> Span:
    """A new span, to be filled."""
    span = Span()
    span.CopyFrom(like)
    return span


def place(span: Span, trace_id: bytes, span_id: bytes, parent: bytes, began: int, ended: int) -> None:
    """`parent`: a span's id, b"" for the first one of a trace. Times in nanoseconds since 1970."""
    span.trace_id, span.span_id, span.parent_span_id = trace_id, span_id, parent
    span.start_time_unix_nano, span.end_time_unix_nano = began, max(began, ended)


def put(attributes: Any, name: str, value: Value) -> None:
    """Add an attribute to a span's or a link's; None and "" are left out."""
    if value is None or value == "":
        return
    entry = attributes.add()
    entry.key = name
    if isinstance(value, str):
        entry.value.string_value = value
    elif isinstance(value, bool):
        entry.value.bool_value = value
    elif isinstance(value, int):
        entry.value.int_value = value
    elif isinstance(value, float):
        entry.value.double_value = value
    else:
        entry.value.array_value.values.extend([AnyValue(string_value=each) for each in value])


def fill(
    attributes: Any,
    texts: Iterable[tuple[str, str]],
    numbers: Iterable[tuple[str, int | None]] = (),
    cost_usd: float | None = None,
) -> None:
    """Add many attributes of a span. As `put`, and quicker."""
    add = attributes.add
    for name, text in texts:
        if text:
            entry = add()
            entry.key = name
            entry.value.string_value = text
    for name, number in numbers:
        if number is not None:
            entry = add()
            entry.key = name
            entry.value.int_value = number
    if cost_usd is not None:
        entry = add()
        entry.key = "cost_usd"
        entry.value.double_value = cost_usd


def failed(span: Span, error_type: str) -> None:
    """Mark the span as an error of this type. No text of a provider: it may quote a prompt."""
    put(span.attributes, "error.type", error_type)
    span.status.code = Status.STATUS_CODE_ERROR
    span.status.message = error_type


def link(span: Span, trace_id: bytes, span_id: bytes, why: str) -> None:
    """Refer to an earlier span of the job. `why`: retry, failover or next execution."""
    one = span.links.add()
    one.trace_id, one.span_id = trace_id, span_id
    put(one.attributes, "failover.link", why)


def resource_of(attributes: Iterable[tuple[str, str]]) -> Resource:
    resource = Resource()
    fill(resource.attributes, attributes)
    return resource
