"""What a provider's answer means: one Failure, or None for a completion that can be used.

`classify` looks up a Reply (a complete HTTP response) or a Broken (none arrived) in the catalog. The Failure says what to
do next and what the route's breaker counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from worker.errors import retry_after
from worker.errors.answers import error_of_choice, problem_of
from worker.errors.blame import blames_the_job, may_mean, names_a_field, unfit_parameter
from worker.errors.catalog import (
    ANSWER_TOO_LONG,
    BAD_KEY,
    BILLING,
    CONTEXT,
    FILTERED,
    LOCAL_TROUBLE,
    MALFORMED,
    NO_MODEL,
    PARAMETER,
    QUOTA,
    RATE_LIMITED,
    STATUS,
    UNABLE_TO,
    UNKNOWN_4XX,
    Action,
    Failure,
    is_success,
)
from worker.errors.codes import CODES, KINDS
from worker.errors.error_body import QUOTED, ErrorBody, error_in, is_error, named
from worker.errors.wordings import FAMILIES


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
_MAY_WAIT = frozenset({Action.RETRY, Action.FAILOVER})
SHORTEST_COOLDOWN = 30.0  # seconds, for what a person has to mend
_NAMES_A_TIME = frozenset({408, 409, 429})
_UNTIL_A_RESET = frozenset({QUOTA.code, BILLING.code})
_GRAVE = (BILLING, QUOTA, BAD_KEY, FILTERED, RATE_LIMITED)
_OF_TOOLS = re.compile(
    r"tools?[.\[]\d|function_declarations|pars(?:e|ing) (?:tool|input)|function name|input_schema|not parse|grammar",
    re.IGNORECASE,
)
_OTHER_KEYS = re.compile(r"image|\burl\b|download|\bmcp\b|schema", re.IGNORECASE)  # not those of our account
_ALIBABA = re.compile(r"aliyun|alibabacloud|model-studio", re.IGNORECASE)
_KEY = re.compile(r"\b(?:sk|rk|pk|gsk|key|ya29|AIza)[-_.A-Za-z0-9*]{8,}")


def classify(answer: Reply | Broken, now: float) -> Failure | None:
    """What went wrong, or None for a completion that can be used. `now` is Unix seconds, for dates to wait for."""
    if isinstance(answer, Broken):
        return replace(_BROKEN[answer.how], detail=answer.detail)
    fine = is_success(answer.status)
    if fine and not is_error(answer.body) and not (answer.body is None and answer.text):
        broken = error_of_choice(answer.body)
        return problem_of(answer.body) if broken is None else _of_error(answer, error_in({"error": broken}), now)
    error = error_in(answer.body, answer.text)
    if fine and answer.body is None:
        return replace(MALFORMED, status=answer.status, detail=error.words)
    if kind := answer.headers.get("x-amzn-errortype"):
        error.names.append(named(kind))
    if 300 <= answer.status < 400 and (to := answer.headers.get("location")):
        error.words = f"{error.words} redirected to {to[:200]}".strip()
    return _of_error(answer, error, now)


def _of_error(answer: Reply, error: ErrorBody, now: float) -> Failure:
    status = meant = _meant(answer.status, error)
    if is_success(meant):  # it does not say what kind of error: its words may, and else the provider is in trouble
        status, meant = 400, 502
    found = _by_words(error, status) or _by_status(meant)
    if found.code in _MAY_BE_THE_JOBS and names_a_field(error):
        found = replace(found, action=Action.REJECT)
    found = replace(found, status=answer.status, detail=error.words or " ".join(error.names))
    if found.cooldown:
        return replace(found, cooldown=_until_mended(found, answer, error, now))
    if found.action not in _MAY_WAIT or (
        found.code != RATE_LIMITED.code and meant not in _NAMES_A_TIME and meant < 500
    ):
        return found  # a time in its words is the job's, and not the provider's
    limited = found.code == RATE_LIMITED.code
    seconds = retry_after.retry_after(answer.headers, error, now, limited=limited, in_words=meant != 500)
    return replace(found, retry_after=seconds)


def _until_mended(found: Failure, answer: Reply, error: ErrorBody, now: float) -> float:
    """Seconds until the account's reset, where the provider names one."""
    if found.code not in _UNTIL_A_RESET:
        return found.cooldown
    named_reset = retry_after.account_reset(error, now) or retry_after.retry_after(answer.headers, error, now)
    return max(named_reset, SHORTEST_COOLDOWN) if named_reset else found.cooldown


def _meant(status: int, error: ErrorBody) -> int:
    """The status that an error's own number or name stands for, where the HTTP status says little."""
    quotes_the_job = blames_the_job(error) or _OF_TOOLS.search(error.words)
    names = [*error.names, *(() if quotes_the_job else error.prose)]
    if status == 403 and any(KINDS.get(name) == 429 for name in names):
        return 429
    if not is_success(status) and (status in _SPEAKS or status >= 500 or status < 400):
        return status
    if status in (400, 422):
        names = [name for name in names if name != "api_error"]  # Ollama's name for any of its errors
    inner = next((number for number in error.numbers if number in STATUS and number not in (400, 422)), None)
    return inner or next((KINDS[name] for name in names if KINDS.get(name, 400) != 400), status)


def _by_words(error: ErrorBody, status: int) -> Failure | None:
    """What the error's words say more than its status does. A provider in trouble (5xx) is taken at its word where it names a
    code, or says that a bill is unpaid; one that blames a field of the job says nothing of its account."""
    blames = blames_the_job(error)
    found = next((CODES[name] for name in error.names if name in CODES), None)
    if found is None and not blames and any(CODES.get(name) is CONTEXT for name in error.prose):
        found = CONTEXT
    if status >= 500:
        if found not in (None, PARAMETER) and not error.page:
            return found
        in_full = status == 500 and not error.page and not _OF_TOOLS.search(error.words)
        return _family_of(error, status, {BILLING, CONTEXT} if in_full else {BILLING})
    if found is QUOTA and _ALIBABA.search(error.words):
        found = RATE_LIMITED  # its limit by the minute has the same name
    if "string_above_max_length" in error.names:
        found = (
            CONTEXT
            if all(param.endswith("content") for param in error.params)
            else (unfit_parameter(error) or UNABLE_TO)
        )
    if found is None:
        found = _family_of(error, status, may_mean(error) if blames else None)
    if found in (None, PARAMETER, NO_MODEL) and status not in _SPEAKS:
        return unfit_parameter(error) or (None if found is PARAMETER else found)
    if found is None and status == 429 and retry_after.daily_quota(error):
        return QUOTA
    if status == 403 and any(node.get("reasons") for node in error.nodes):
        return FILTERED  # OpenRouter's moderation
    return None if found is PARAMETER else found


def _family_of(error: ErrorBody, status: int, only: Collection[Failure] | None) -> Failure | None:
    """The first family of wordings that is found. What parks an account or buries a job must be the provider's word: not a
    page's, which comes from something between us, nor quoted, nor said beside the job's tools. `only`: failures that count
    here; None: all."""
    bare, own = QUOTED.sub(" ", error.words), not error.page and not _OF_TOOLS.search(error.words)
    for family in FAMILIES:
        grave = family.failure in _GRAVE
        counts = (only is None or family.failure in only) and status not in family.not_in and (own or not grave)
        if counts and family.pattern.search(bare if grave else error.words):
            found = family.failure
            if not (found is BAD_KEY and _OTHER_KEYS.search(error.words)):
                return found
    return None


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
