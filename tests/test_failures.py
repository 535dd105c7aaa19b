"""The taxonomy: each row a real shape of an answer -> what we do and what the breaker learns."""

from __future__ import annotations

from typing import Any

import pytest

from worker.failures import Action, Breaker, Broke, Broken, Failure, Reply, classify

NOW = 1_763_700_000.0


def answer(content: Any = "hi", finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}]}


def error(message: str = "", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


def judged(status: int, body: Any, **headers: str) -> Failure | None:
    return classify(Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body), NOW)


ROWS = [
    # status, body, code, action, breaker
    (400, error("bad"), "bad_request", Action.REJECT, Breaker.NEUTRAL),
    (400, error("too long", code="context_length_exceeded"), "context_length", Action.LARGER, Breaker.NEUTRAL),
    (400, error("prompt is too long: 210000 tokens"), "context_length", Action.LARGER, Breaker.NEUTRAL),
    (400, error("no", code="content_filter"), "content_filter", Action.REFUSE, Breaker.NEUTRAL),
    (400, error("Your credit balance is too low to access the API"), "quota", Action.FAILOVER, Breaker.NEUTRAL),
    (401, error("bad key"), "unauthorized", Action.FAILOVER, Breaker.NEUTRAL),
    (402, error("pay"), "billing", Action.FAILOVER, Breaker.NEUTRAL),
    (403, error("no"), "forbidden", Action.FAILOVER, Breaker.NEUTRAL),
    (404, error("no model"), "no_such_model", Action.FAILOVER, Breaker.NEUTRAL),
    (408, None, "request_timeout", Action.RETRY, Breaker.COUNT),
    (409, None, "conflict", Action.RETRY, Breaker.NEUTRAL),
    (413, None, "too_large", Action.LARGER, Breaker.NEUTRAL),
    (418, None, "rejected", Action.REJECT, Breaker.NEUTRAL),
    (422, error("no"), "unprocessable", Action.REJECT, Breaker.NEUTRAL),
    (429, error("slow down"), "rate_limited", Action.RETRY, Breaker.NEUTRAL),
    (429, error("quota, in prose only"), "rate_limited", Action.RETRY, Breaker.NEUTRAL),
    (429, error("no money", code="insufficient_quota"), "quota", Action.FAILOVER, Breaker.NEUTRAL),
    (429, error("no money", type="insufficient_quota"), "quota", Action.FAILOVER, Breaker.NEUTRAL),
    (500, error("oops"), "server_error", Action.RETRY, Breaker.COUNT),
    (500, error("prompt is too long"), "server_error", Action.RETRY, Breaker.COUNT),
    (502, None, "bad_gateway", Action.FAILOVER, Breaker.COUNT),
    (503, None, "unavailable", Action.RETRY, Breaker.COUNT),
    (504, None, "gateway_timeout", Action.FAILOVER, Breaker.COUNT),
    (529, error("overloaded", type="overloaded_error"), "overloaded", Action.RETRY, Breaker.COUNT),
    (599, None, "server_error", Action.RETRY, Breaker.COUNT),
    (302, None, "unexpected_status", Action.FAILOVER, Breaker.COUNT),
    (200, None, "malformed_answer", Action.FAILOVER, Breaker.COUNT),
    (200, [], "malformed_answer", Action.FAILOVER, Breaker.COUNT),
    (200, {"choices": []}, "malformed_answer", Action.FAILOVER, Breaker.COUNT),
    (200, {"choices": [{"message": None}]}, "malformed_answer", Action.FAILOVER, Breaker.COUNT),
    (200, answer(None), "empty_answer", Action.FAILOVER, Breaker.COUNT),
    (200, error("limited", code=429), "rate_limited", Action.RETRY, Breaker.NEUTRAL),
    (200, error("upstream broke"), "bad_gateway", Action.FAILOVER, Breaker.COUNT),
    (200, answer("", finish="content_filter"), "content_filter", Action.REFUSE, Breaker.NEUTRAL),
    (200, answer(None, refusal="I can't"), "content_filter", Action.REFUSE, Breaker.NEUTRAL),
    (429, [error("gone", status="RESOURCE_EXHAUSTED")], "rate_limited", Action.RETRY, Breaker.NEUTRAL),
]


@pytest.mark.parametrize(("status", "body", "code", "action", "breaker"), ROWS)
def test_every_row(status: int, body: Any, code: str, action: Action, breaker: Breaker) -> None:
    failure = judged(status, body)
    assert failure is not None
    assert (failure.code, failure.action, failure.breaker) == (code, action, breaker)


@pytest.mark.parametrize(
    "body", [answer(), answer(""), answer("cut off", finish="length"), answer(None, tool_calls=[{"id": "1"}])]
)
def test_what_is_an_answer(body: dict[str, Any]) -> None:
    assert judged(200, body) is None


@pytest.mark.parametrize(
    ("how", "code", "action", "ambiguous"),
    [
        (Broke.UNREACHABLE, "unreachable", Action.RETRY, False),
        (Broke.RESET, "reset", Action.FAILOVER, True),
        (Broke.SILENT, "timeout", Action.FAILOVER, True),
        (Broke.GARBLED, "garbled", Action.FAILOVER, True),
    ],
)
def test_without_an_answer(how: Broke, code: str, action: Action, ambiguous: bool) -> None:
    failure = classify(Broken(how), NOW)
    assert failure is not None
    assert (failure.code, failure.action, failure.ambiguous, failure.breaker) == (
        code,
        action,
        ambiguous,
        Breaker.COUNT,
    )


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry_after": "7"}, "", 7.0),
        ({"retry_after": "Fri, 21 Nov 2025 04:40:30 GMT"}, "", 30.0),
        ({"retry_after_ms": "250"}, "", 0.25),
        ({"x_ms_retry_after_ms": "1500", "retry_after": "9"}, "", 1.5),
        ({}, "Rate limit reached. Please try again in 46.72s.", 46.72),
        ({}, "Please try again in 120ms.", 0.12),
        ({"retry_after": "-5"}, "", 0.0),
        ({"retry_after": "nan"}, "", None),
        ({"retry_after": "inf"}, "", None),
        ({"retry_after": "10000000000"}, "", 3600.0),
        ({"retry_after": "Thu, 01 Jan 1970 00:00:00 GMT"}, "", 0.0),
        ({"retry_after": "soon"}, "", None),
        ({}, "", None),
    ],
)
def test_retry_after_is_read_and_never_trusted(headers: dict[str, str], message: str, seconds: float | None) -> None:
    failure = judged(429, error(message), **headers)
    assert failure is not None
    assert failure.retry_after == (None if seconds is None else pytest.approx(seconds))
