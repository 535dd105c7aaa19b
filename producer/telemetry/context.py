"""W3C trace context: which trace a job belongs to, and which span comes before it (https://www.w3.org/TR/trace-context/).

It travels in the job's `metadata`, under the name of the header. So it needs no field that an older worker would refuse.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

TRACEPARENT = "traceparent"
LONGEST = 256  # a later version may append fields to the 55 characters of this one
NO_TRACE, NO_SPAN = "0" * 32, "0" * 16
_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class SpanContext(NamedTuple):
    """A span as others refer to it. `trace_id`: 16 bytes. `span_id`: 8 bytes. `sampled`: its trace is recorded."""

    trace_id: bytes
    span_id: bytes
    sampled: bool

    @property
    def header(self) -> str:
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{'01' if self.sampled else '00'}"


def parse(header: str | None) -> SpanContext | None:
    """The context in a `traceparent`; None for one that is not valid, which W3C says to ignore."""
    found = _HEADER.fullmatch(header) if header and len(header) <= LONGEST else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == NO_TRACE or span_id == NO_SPAN:
        return None
    return SpanContext(bytes.fromhex(trace_id), bytes.fromhex(span_id), bool(int(flags, 16) & 1))


def carried(metadata: Mapping[str, str], header: str | None) -> dict[str, str]:
    """A job's metadata with the `traceparent` of the request that brought it, if that is valid and the job names none."""
    if header is None or TRACEPARENT in metadata or parse(header) is None:
        return dict(metadata)
    return {**metadata, TRACEPARENT: header}


def active_span() -> SpanContext | None:
    """The span that the calling program has open, if it uses OpenTelemetry itself. Imports nothing."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    span = api.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    sampled = bool(span.trace_flags & 1)
    return SpanContext(span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big"), sampled)


def derived(text: str, size: int) -> bytes:
    """An id that follows from `text`, so that every worker knows it without being told."""
    return sha256(text.encode(errors="replace")).digest()[:size]
