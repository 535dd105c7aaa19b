"""What a provider's answer means: one Failure, or None for a completion that can be used.

`classify` looks up a Reply (a complete HTTP response) or a Broken (none arrived) in the catalog. The Failure says what to
do next and what the route's breaker counts. No other module reads status codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from worker.errors import retry_after
from worker.errors.catalog import (
    CODES,
    EMPTY,
    FILTERED,
    INSTEAD,
    KINDS,
    MALFORMED,
    PARAMETER,
    QUOTA,
    RENAMES,
    STATUS,
    UNKNOWN_PARAMETER,
    WORDINGS,
    Action,
    Breaker,
    Failure,
)


@dataclass(frozen=True)
class Reply:
    """A complete HTTP response. `body`: the parsed JSON, None when it is not JSON. Header names are in lower case.

    `note`: for the trail, what was unusual about an answer that can still be used.
    """

    status: int
    headers: Mapping[str, str]
    body: Any
    note: str = ""


class Broke(StrEnum):
    UNREACHABLE = "unreachable"  # DNS, connect, TLS: the request was never sent
    RESET = "reset"  # the connection broke after the request may have been sent
    SILENT = "silent"  # no answer within the attempt's time
    NO_TOKEN = "no token"  # noqa: S105 - a stream without its first token in time
    STALLED = "stalled"  # a stream that began and fell silent
    CUT = "cut"  # a stream that ended before its answer did
    GARBLED = "garbled"  # not HTTP


@dataclass(frozen=True)
class Broken:
    """An attempt without a complete response."""

    how: Broke
    detail: str = ""


_BROKEN = {
    Broke.UNREACHABLE: Failure("unreachable", Action.RETRY, retries=1),
    Broke.RESET: Failure("reset", Action.FAILOVER, ambiguous=True),
    Broke.SILENT: Failure("timeout", Action.FAILOVER, ambiguous=True),
    Broke.NO_TOKEN: Failure("slow_first_token", Action.FAILOVER, ambiguous=True),
    Broke.STALLED: Failure("stalled", Action.FAILOVER, ambiguous=True),
    Broke.CUT: Failure("stream_cut", Action.FAILOVER, ambiguous=True),
    Broke.GARBLED: Failure("garbled", Action.FAILOVER, ambiguous=True),
}

_KEY = re.compile(r"\b(?:sk|rk|pk|gsk|key|ya29|AIza)[-_.A-Za-z0-9*]{8,}")


def classify(answer: Reply | Broken, now: float) -> Failure | None:
    """What went wrong, or None for a completion that can be used. `now` is Unix seconds, for dates to wait for."""
    if isinstance(answer, Broken):
        return replace(_BROKEN[answer.how], detail=answer.detail)
    error = error_of(answer.body)
    if answer.status == 200 and not error:
        return _answer_problem(answer.body)
    status, words = answer.status, answer.status
    if status == 200:  # an error inside it goes by its own code, else by its words, else it is the provider's
        inner = error.get("code")
        meant = inner if isinstance(inner, int) else KINDS.get(str(error.get("type")))
        status, words = (meant, meant) if meant in STATUS else (502, 400)
    found = _by_text(error, words) or _by_status(status)
    found = replace(found, status=answer.status, detail=_message(error)[:4000])
    if found.cooldown:
        return replace(found, cooldown=retry_after.rest(error, now) or found.cooldown)
    return replace(found, retry_after=retry_after.retry_after(answer.headers, error, now))


def _answer_problem(body: Any) -> Failure | None:
    """A 200 without an error object still has to be an answer."""
    try:
        choices = [(choice, choice["message"]) for choice in body["choices"]]
        parts = [(m.get("content"), m.get("tool_calls"), m.get("refusal")) for _, m in choices]
        finishes = [choice.get("finish_reason") for choice, _ in choices]
    except (TypeError, KeyError, AttributeError):
        return replace(MALFORMED, status=200, detail="not a chat completion")
    if not choices:
        return replace(MALFORMED, status=200, detail="no choices")
    if "content_filter" in finishes or any(refusal for *_, refusal in parts):
        return replace(FILTERED, status=200, detail="the provider refused to answer")
    if "error" in finishes:
        return replace(STATUS[502], status=200, detail="finish_reason error")
    if any(content is None and not tools for content, tools, _ in parts):
        return replace(EMPTY, status=200, detail="neither content nor tool calls")
    return None


def _by_text(error: Mapping[str, Any], status: int) -> Failure | None:
    """What the error's words say more than its status does; a provider in trouble (5xx) is not taken at its word."""
    if status >= 500:
        return None
    message = _message(error)
    found = next((CODES[name] for name in _names(error) if name in CODES), None)
    if found is None:
        found = next((failure for wording, failure in WORDINGS if wording.search(message)), None)
    if found in (None, PARAMETER) and status in (400, 422):
        return _parameter(error, message) or (None if found is PARAMETER else found)
    if found is None and status == 429 and retry_after.daily_quota(error):
        return QUOTA
    if status == 403 and isinstance(error.get("metadata"), dict) and error["metadata"].get("reasons"):
        return FILTERED  # OpenRouter's moderation
    return None if found is PARAMETER else found


def _names(error: Mapping[str, Any]) -> Iterator[str]:
    """Every name that an error goes by, its own before those of what lies inside it."""
    inner = [error.get("innererror"), error.get("inner_error"), *retry_after.details(error), *_forbidden(error)]
    for one in (error, *inner):
        if isinstance(one, dict):
            for field in ("code", "type", "status", "reason"):
                if isinstance(name := one.get(field), str):
                    yield name


def _parameter(error: Mapping[str, Any], message: str) -> Failure | None:
    """The parameter that the route says it does not know."""
    named = error.get("param") if any(CODES.get(name) is PARAMETER for name in _names(error)) else None
    if not isinstance(named, str):
        named = next((str(entry["loc"][-1]) for entry in _forbidden(error)), None)
    if named is None:
        named = next((found[1] for known in UNKNOWN_PARAMETER if (found := known.search(message))), None)
    if not named:
        return None
    parameter = named.split(".")[0]
    better = INSTEAD.search(message)
    return replace(PARAMETER, parameter=parameter, instead=better[1] if better else RENAMES.get(parameter, ""))


def _forbidden(error: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mistral's list of inputs that it does not permit."""
    message = error.get("message")
    found = message.get("detail") if isinstance(message, dict) else error.get("detail")
    entries = found if isinstance(found, list) else []
    return [e for e in entries if isinstance(e, dict) and e.get("type") == "extra_forbidden" and e.get("loc")]


def _by_status(status: int) -> Failure:
    if status in STATUS:
        return STATUS[status]
    if status >= 500:
        return Failure("server_error", Action.RETRY, retries=1)
    if 400 <= status < 500:
        return Failure("rejected", Action.REJECT, Breaker.NEUTRAL)
    return Failure("unexpected_status", Action.FAILOVER)


def redacted(text: str, key: str) -> str:
    """A provider's words without the key that it may quote."""
    text = text.replace(key, "[key]") if key else text
    return _KEY.sub("[key]", text)


def error_of(body: Any) -> Mapping[str, Any]:
    """The error of a body, empty if there is none.

    OpenAI's {"error": {...}} (as most providers have it), Gemini's array of them, Mistral's {"object": "error", ...}, and
    the {"message": ...} or {"detail": ...} of a gateway before the provider.
    """
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return {}
    if error := body.get("error"):
        return error if isinstance(error, dict) else {"message": str(error)}
    if "choices" not in body and (body.get("object") == "error" or "message" in body or "detail" in body):
        return body
    return {}


def _message(error: Mapping[str, Any]) -> str:
    message = error.get("message") or error.get("detail")
    return " ".join(message.split()) if isinstance(message, str) else "" if message is None else str(message)
