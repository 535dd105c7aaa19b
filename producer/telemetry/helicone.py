"""Spans of calls as Helicone's manual logger takes them (https://docs.helicone.ai/getting-started/integration-method/
manual-logger-curl): one request for each call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from producer.telemetry.spans import CALL, Batch

CODE, CLIENT_CLOSED = "http.response.status_code", 499  # of a call without an HTTP answer
PROPERTIES = ("tenant_id", "feature", "failover.route", "failover.job_type", "provider", "cost_usd", "error.type")


def bodies(batch: Batch) -> Iterator[bytes]:
    """JSON, one for each span that is a call; other spans are no requests to a model."""
    for span in map(Span.FromString, batch.spans):
        if span.kind == CALL:
            yield json.dumps(logged(span)).encode()


def logged(span: Span) -> dict[str, Any]:
    facts = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
    tokens = {"prompt_tokens": facts.get("gen_ai.usage.input_tokens", 0)}
    tokens |= {"completion_tokens": facts.get("gen_ai.usage.output_tokens", 0)}
    meta = {"Helicone-Session-Id": span.trace_id.hex(), "Helicone-User-Id": facts.get("user_id", "")}
    meta |= {f"Helicone-Property-{name.removeprefix('failover.')}": str(facts.get(name, "")) for name in PROPERTIES}
    model = facts.get("model", "unknown")
    return {
        "providerRequest": {
            "url": "custom-model-nopath",
            "json": {"model": model, "messages": _messages(facts, "gen_ai.input.messages")},
            "meta": {name: value for name, value in meta.items() if value},
        },
        "providerResponse": {
            "json": {
                "model": facts.get("gen_ai.response.model", model),
                "usage": tokens,
                "choices": [{"message": each} for each in _messages(facts, "gen_ai.output.messages")],
            },
            "status": facts.get(CODE, CLIENT_CLOSED if "error.type" in facts else 200),
            "headers": {},
        },
        "timing": {"startTime": _time(span.start_time_unix_nano), "endTime": _time(span.end_time_unix_nano)},
    }


def _messages(facts: dict[str, Any], name: str) -> list[dict[str, str]]:
    """The text of each message; none unless content is recorded."""
    told: list[dict[str, Any]] = json.loads(facts.get(name, "[]"))
    return [
        {"role": each["role"], "content": "".join(str(part.get("content", "")) for part in each["parts"])}
        for each in told
    ]


def _time(nanoseconds: int) -> dict[str, int]:
    seconds, rest = divmod(nanoseconds, 10**9)
    return {"seconds": seconds, "milliseconds": rest // 10**6}
