"""What a provider's answer means: one Failure, or None for a completion that can be used.

`classify` looks up a Reply (a complete HTTP response) or a Broken (none arrived) in the catalog. The Failure says what to
do next and what the route's breaker counts. No other module reads status codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from worker.errors import retry_after
from worker.errors.catalog import (
    ANSWER_TOO_LONG,
    CODES,
    EMPTY,
    FILTERED,
    JOB_FIELDS,
    KINDS,
    LOCAL_TROUBLE,
    MALFORMED,
    PARAMETER,
    QUOTA,
    RENAMES,
    STATUS,
    UNKNOWN_4XX,
    UNKNOWN_END,
    Action,
    Failure,
)
from worker.errors.endings import Ending, worst_ending
from worker.errors.error_body import ErrorBody, error_in, is_error
from worker.errors.wordings import FAMILIES, INSTEAD, NAMED_FIELD, UNKNOWN_PARAMETER


@dataclass(frozen=True)
class Reply:
    """A complete HTTP response. `body`: the parsed JSON, None when it is not JSON. Header names are in lower case.

    `note`: for the trail, what was unusual about an answer that can still be used.
    """

    status: int
    headers: Mapping[str, str]
    body: Any
    note: str = ""
    text: str = ""  # the beginning of a body that is not JSON
    first_token_at: float | None = None  # when the first token of a stream came, on the monotonic clock


class Broke(StrEnum):
    UNREACHABLE = "unreachable"  # DNS, connect, TLS: the request was never sent
    RESET = "reset"  # the connection broke after the request may have been sent
    SILENT = "silent"  # no answer within the attempt's time
    NO_TOKEN = "no token"  # noqa: S105 - a stream without its first token in time
    STALLED = "stalled"  # a stream that began and fell silent
    CUT = "cut"  # a stream that ended before its answer did
    GARBLED = "garbled"  # not HTTP
    TOO_LONG = "too long"  # longer than the route's max_answer_bytes
    LOCAL = "local"  # trouble of this worker's machine: the request was never sent
    LOST = "lost"  # trouble of this worker's machine, after the request may have been sent


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
    Broke.TOO_LONG: ANSWER_TOO_LONG,
    Broke.LOCAL: LOCAL_TROUBLE,
    Broke.LOST: replace(LOCAL_TROUBLE, code="answer_lost", ambiguous=True),
}

_SPEAKS = frozenset({401, 402, 403, 404, 408, 409, 413, 429})  # statuses that say enough by themselves
_MAY_BE_THE_JOBS = frozenset({"bad_request", "unprocessable"})
_ANSWERS = ("tool_calls", "function_call", "audio", "images")  # what an answer may be instead of content
_FOREIGN = frozenset(
    {"top_k", "min_p", "repetition_penalty", "thinking", "enable_thinking", "reasoning"}
)  # of other dialects
_COMMON_WORDS = frozenset({"user", "model", "stop", "stream", "store", "audio", "n", "metadata"})
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_KEY = re.compile(r"\b(?:sk|rk|pk|gsk|key|ya29|AIza)[-_.A-Za-z0-9*]{8,}")


def classify(answer: Reply | Broken, now: float) -> Failure | None:
    """What went wrong, or None for a completion that can be used. `now` is Unix seconds, for dates to wait for."""
    if isinstance(answer, Broken):
        return replace(_BROKEN[answer.how], detail=answer.detail)
    if answer.status == 200 and not is_error(answer.body) and not (answer.body is None and answer.text):
        return _answer_problem(answer.body)
    error = error_in(answer.body, answer.text)
    if answer.status == 200 and answer.body is None:
        return replace(MALFORMED, status=200, detail=error.words)
    status = _meant(answer.status, error)
    found = _by_words(error, 400 if status == 200 else status) or _by_status(502 if status == 200 else status)
    if found.code in _MAY_BE_THE_JOBS and _names_a_field(error):
        found = replace(found, action=Action.REJECT)
    found = replace(found, status=answer.status, detail=error.words or " ".join(error.names))
    if found.cooldown:
        return replace(found, cooldown=retry_after.account_reset(error, now) or found.cooldown)
    return replace(found, retry_after=retry_after.retry_after(answer.headers, error, now, limited=status == 429))


def _meant(status: int, error: ErrorBody) -> int:
    """The status that an error's own number or name stands for, where the HTTP status says little."""
    if status != 200 and (status in _SPEAKS or status >= 500 or status < 400):
        return status
    inner = next((number for number in error.numbers if number in STATUS and number not in (400, 422)), None)
    return inner or next((KINDS[name] for name in error.names if KINDS.get(name, 400) != 400), status)


def _answer_problem(body: Any) -> Failure | None:
    """A 200 without an error still has to be an answer, and to have ended well."""
    try:
        choices = list(body["choices"])
        ending = worst_ending(choices)
        messages = [choice.get("message") for choice in choices]
    except (TypeError, KeyError, AttributeError):
        return replace(MALFORMED, status=200, detail="not a chat completion")
    if not choices:
        return replace(MALFORMED, status=200, detail="no choices")
    ends = ", ".join(str(choice.get("finish_reason"))[:100] for choice in choices)
    refused = any(isinstance(message, dict) and message.get("refusal") for message in messages)
    if ending is Ending.UNKNOWN:
        return replace(UNKNOWN_END, status=200, detail=f"an end that nobody here knows: finish_reason {ends}")
    if ending is Ending.FAILED:
        return replace(STATUS[502], status=200, detail=f"the provider failed in the middle: finish_reason {ends}")
    if ending is Ending.REFUSED or refused:
        return replace(FILTERED, status=200, detail=f"the provider refused to answer: finish_reason {ends}")
    if not all(isinstance(message, dict) for message in messages):
        return replace(MALFORMED, status=200, detail="not a chat completion")
    if ending is not Ending.CUT and any(_says_nothing(message) for message in messages):
        return replace(EMPTY, status=200, detail="neither content nor tool calls")
    return None


def _says_nothing(message: Mapping[str, Any]) -> bool:
    """Whether a message has none of the things that can be an answer."""
    return message.get("content") is None and not any(message.get(name) for name in _ANSWERS)


def _by_words(error: ErrorBody, status: int) -> Failure | None:
    """What the error's words say more than its status does; a provider in trouble (5xx) is not taken at its word."""
    if status >= 500:
        return None
    found = next((CODES[name] for name in error.names if name in CODES), None)
    if found is None:
        families = (family for family in FAMILIES if status not in family.not_in)
        found = next((family.failure for family in families if family.pattern.search(error.words)), None)
    if found in (None, PARAMETER) and status not in _SPEAKS:
        return _parameter(error) or (None if found is PARAMETER else found)
    if found is None and status == 429 and retry_after.daily_quota(error):
        return QUOTA
    if status == 403 and any(node.get("reasons") for node in error.nodes):
        return FILTERED  # OpenRouter's moderation
    return None if found is PARAMETER else found


def _parameter(error: ErrorBody) -> Failure | None:
    """The parameter that the route says it does not know."""
    named = error.params[0] if error.params and any(CODES.get(name) is PARAMETER for name in error.names) else None
    if named is None:
        searched = (match for known in UNKNOWN_PARAMETER for match in known.finditer(error.words))
        named = next((match[1] for match in searched if _field(match[1]) in JOB_FIELDS | _FOREIGN), None)
    if not named:
        return None
    parameter, better = _field(named), INSTEAD.search(error.words)
    return replace(PARAMETER, parameter=parameter, instead=better[1] if better else RENAMES.get(parameter, ""))


def _field(named: str) -> str:
    """The top-level field of a path, in the casing of chat completions: `presence_penalty` of `presencePenalty`."""
    root = re.split(r"[.\[]", named, maxsplit=1)[0]
    return _HUMP.sub("_", root).lower() if not root.isupper() else root.lower()


def _names_a_field(error: ErrorBody) -> bool:
    """Whether the error blames a field of the job itself."""
    if any(_field(param) in JOB_FIELDS for param in error.params):
        return True
    named = (next(filter(None, match.groups())) for match in NAMED_FIELD.finditer(error.words))
    return any(_field(name) in JOB_FIELDS - _COMMON_WORDS for name in named)


def _by_status(status: int) -> Failure:
    if status in STATUS:
        return STATUS[status]
    if status >= 500:
        return Failure("server_error", Action.RETRY, retries=1)
    if 400 <= status < 500:
        return UNKNOWN_4XX
    return Failure("unexpected_status", Action.FAILOVER)


def redacted(text: str, key: str) -> str:
    """A provider's words without the key that it may quote."""
    text = text.replace(key, "[key]") if key else text
    return _KEY.sub("[key]", text)
