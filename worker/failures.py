"""What a provider's answer means: the taxonomy of failures, as data.

`classify` turns a Reply (an HTTP response that arrived whole) or a Broken (none did) into a Failure, or into None for
a success. A Failure says what to do next and what the route's breaker learns; nobody else looks at status codes.

First cut: the rows that a batch meets every day. Sources: the providers' error pages as of November 2026.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any


class Action(StrEnum):
    RETRY = "retry"  # this route again, at most `retries` times, then the next
    FAILOVER = "failover"  # the next route at once
    LARGER = "larger"  # only a route with a larger context window
    REJECT = "reject"  # no route can mend it: dead, `rejected`
    REFUSE = "refuse"  # a matter for a human: dead, `refused`


class Breaker(StrEnum):
    COUNT = "count"  # one failure of the route
    NEUTRAL = "neutral"  # says nothing about the route's health


@dataclass(frozen=True)
class Failure:
    """One failed attempt. `ambiguous`: it may have been billed.

    `retry_after`: seconds that the provider named. `rests`: seconds for which nobody should call the route, when it is
    the account or the route itself that is wrong: no job is to blame, and calling again soon mends nothing.
    """

    code: str
    action: Action
    breaker: Breaker = Breaker.COUNT
    retries: int = 2
    ambiguous: bool = False
    status: int | None = None
    retry_after: float | None = None
    rests: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Reply:
    """A whole HTTP response. `body` is the parsed JSON, or None when it is not JSON. Header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Broke(StrEnum):
    UNREACHABLE = "unreachable"  # DNS, connect, TLS: the request was never sent
    RESET = "reset"  # the connection broke after the request may have been sent
    SILENT = "silent"  # no answer within the attempt's time
    GARBLED = "garbled"  # not HTTP


@dataclass(frozen=True)
class Broken:
    """An attempt without a whole response."""

    how: Broke
    detail: str = ""


_BROKEN = {
    Broke.UNREACHABLE: Failure("unreachable", Action.RETRY, retries=1),
    Broke.RESET: Failure("reset", Action.FAILOVER, ambiguous=True),
    Broke.SILENT: Failure("timeout", Action.FAILOVER, ambiguous=True),
    Broke.GARBLED: Failure("garbled", Action.FAILOVER, ambiguous=True),
}

_STATUS = {
    400: Failure("bad_request", Action.REJECT, Breaker.NEUTRAL),
    401: Failure("unauthorized", Action.FAILOVER, Breaker.NEUTRAL, rests=60),
    402: Failure("billing", Action.FAILOVER, Breaker.NEUTRAL, rests=300),
    403: Failure("forbidden", Action.FAILOVER, Breaker.NEUTRAL, rests=60),
    404: Failure("no_such_model", Action.FAILOVER, Breaker.NEUTRAL, rests=60),
    408: Failure("request_timeout", Action.RETRY, retries=1),
    409: Failure("conflict", Action.RETRY, Breaker.NEUTRAL, retries=1),
    413: Failure("too_large", Action.LARGER, Breaker.NEUTRAL),
    422: Failure("unprocessable", Action.REJECT, Breaker.NEUTRAL),
    429: Failure("rate_limited", Action.RETRY, Breaker.NEUTRAL),
    500: Failure("server_error", Action.RETRY, retries=1),
    502: Failure("bad_gateway", Action.FAILOVER, ambiguous=True),
    503: Failure("unavailable", Action.RETRY),
    504: Failure("gateway_timeout", Action.FAILOVER, ambiguous=True),
    529: Failure("overloaded", Action.RETRY),
}

_QUOTA = Failure("quota", Action.FAILOVER, Breaker.NEUTRAL, rests=300)
_CONTEXT = Failure("context_length", Action.LARGER, Breaker.NEUTRAL)
_FILTER = Failure("content_filter", Action.REFUSE, Breaker.NEUTRAL)
_EMPTY = Failure("empty_answer", Action.FAILOVER)

# Error codes and types (exact), then wordings (searched in the message), that say more than the status does.
_CODES = {
    "insufficient_quota": _QUOTA,
    "organization_spend_limit_exceeded": _QUOTA,
    "project_spend_limit_exceeded": _QUOTA,
    "organization_usage_limit_exceeded": _QUOTA,
    "credit_balance_exhausted": _QUOTA,
    "enforced_spend_limit_reached": _QUOTA,
    "contract_spend_limit_reached": _QUOTA,
    "context_length_exceeded": _CONTEXT,
    "content_filter": _FILTER,
    "content_policy_violation": _FILTER,
}
_WORDINGS = tuple(
    (re.compile(pattern, re.IGNORECASE), failure)
    for pattern, failure in (
        ("reached your specified API usage limits|credit balance is too low|monthly spending cap", _QUOTA),
        ("maximum context length|prompt is too long|context window|exceeds the maximum number of tokens", _CONTEXT),
    )
)
_KEY = re.compile(r"\b(?:sk|rk|pk|gsk|key|ya29|AIza)[-_.A-Za-z0-9*]{8,}")
_TRY_AGAIN_IN = re.compile(r"try again in ([0-9.]+)\s*(ms|s)\b", re.IGNORECASE)

LONGEST_RETRY_AFTER = 3600.0


def classify(answer: Reply | Broken, now: float) -> Failure | None:
    """What went wrong, or None for a completion that can be used. `now` is Unix seconds, for Retry-After dates."""
    if isinstance(answer, Broken):
        return replace(_BROKEN[answer.how], detail=answer.detail)
    error = _error_of(answer.body)
    if answer.status == 200 and error is None:
        return _answer_problem(answer.body)
    status = answer.status
    if status == 200 and error is not None:
        inner = error.get("code")
        status = inner if isinstance(inner, int) and inner in _STATUS else 502
    found = _by_text(error, status) or _by_status(status)
    return replace(
        found, status=answer.status, retry_after=_retry_after(answer.headers, error, now), detail=_detail(error)
    )


def _answer_problem(body: Any) -> Failure | None:
    """A 200 without an error object still has to be an answer."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        content, tools, refusal = message.get("content"), message.get("tool_calls"), message.get("refusal")
    except (TypeError, KeyError, IndexError, AttributeError):
        return replace(_EMPTY, code="malformed_answer", status=200, detail="not a chat completion")
    if choice.get("finish_reason") == "content_filter" or refusal:
        return replace(_FILTER, status=200, detail="the provider refused to answer")
    if content is None and not tools:
        return replace(_EMPTY, status=200, detail="neither content nor tool calls")
    return None


def _by_text(error: Mapping[str, Any] | None, status: int) -> Failure | None:
    if error is None or status >= 500:
        return None
    for field in ("code", "type"):
        name = error.get(field)
        if isinstance(name, str) and name in _CODES:
            return _CODES[name]
    message = error.get("message")
    if isinstance(message, str):
        for wording, failure in _WORDINGS:
            if wording.search(message):
                return failure
    return None


def _by_status(status: int) -> Failure:
    if status in _STATUS:
        return _STATUS[status]
    if status >= 500:
        return Failure("server_error", Action.RETRY, retries=1)
    if 400 <= status < 500:
        return Failure("rejected", Action.REJECT, Breaker.NEUTRAL)
    return Failure("unexpected_status", Action.FAILOVER)


def redacted(text: str, key: str) -> str:
    """A provider's words without the key that it may quote."""
    text = text.replace(key, "[key]") if key else text
    return _KEY.sub("[key]", text)


def _error_of(body: Any) -> Mapping[str, Any] | None:
    """The error object of a body: OpenAI's {"error": {...}}, or Gemini's array of them."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict) or not body.get("error"):
        return None
    error = body["error"]
    return error if isinstance(error, dict) else {"message": str(error)}


def _detail(error: Mapping[str, Any] | None) -> str:
    message = (error or {}).get("message")
    return " ".join(message.split())[:300] if isinstance(message, str) else ""


def _retry_after(headers: Mapping[str, str], error: Mapping[str, Any] | None, now: float) -> float | None:
    """Seconds to wait, from headers that are never trusted: negative, nan, past and absurd values are cut."""
    for name, scale in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (value := headers.get(name)) is not None:
            seconds = _seconds(value, scale, now)
            if seconds is not None:
                return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
    message = (error or {}).get("message")
    if isinstance(message, str) and (found := _TRY_AGAIN_IN.search(message)):
        seconds = _seconds(found[1], 0.001 if found[2].lower() == "ms" else 1.0, now)
        return None if seconds is None else min(seconds, LONGEST_RETRY_AFTER)
    return None


def _seconds(value: str, scale: float, now: float) -> float | None:
    try:
        number = float(value) * scale
    except ValueError:
        try:
            number = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return number if math.isfinite(number) else None
