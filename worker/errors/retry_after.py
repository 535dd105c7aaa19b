"""How long a provider asks us to wait, in headers, message texts and error details. None of them can be trusted.

Retry-After may be negative, nan, a date in the past or 10^10. Absurd values are limited, unreadable ones are ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from worker.errors.error_body import QUOTED, ErrorBody

LONGEST_RETRY_AFTER = 3600.0
LONGEST_COOLDOWN = 86_400.0
UNIX_TIME = 1e9  # from here on a number is a time, and not a length

_UNITS = {
    "ms": 0.001,
    "mi": 60.0,
    "d": 86_400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
}  # by their beginning, the longer ones first
_NUMBER, _UNIT = (
    r"\d{1,9}(?:\.\d{1,18})?",
    r"(?:milliseconds?|ms|days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)",
)
_PARTS = re.compile(rf"({_NUMBER}) ?({_UNIT})?", re.IGNORECASE)
_LENGTH = re.compile(rf"^(?:{_NUMBER} ?{_UNIT} ?){{1,5}}$", re.IGNORECASE)
_LEAD = r"(?:try again|retry|wait|resets?|available again)"
_LENGTHS = rf"(?:{_NUMBER} ?{_UNIT}(?:,| and)? ?){{1,5}}"
_IN_WORDS = re.compile(
    rf"{_LEAD}(?: (?:at least|about|around)){{0,2}}[:~ ]{{1,3}}({_LENGTHS})(?![-\d:])"
    rf"|{_LEAD}(?: (?:at least|about|around)){{0,2}} (?:in|after|for)(?: (?:at least|about|around)){{0,2}}[:~ ]{{1,3}}"
    rf"(?:(\d\d:\d\d:\d\d)\b|({_LENGTHS}|(?!20\d\d\b){_NUMBER})(?![-\d:]))|{_LEAD} (?:in |after )?(\d\d:\d\d:\d\d)\b",
    re.IGNORECASE,
)
_DATE_IN_WORDS = re.compile(
    r"(?:resets? (?:at|on)|(?:retry|again|available) (?:after|at|on|from)|将在) ?"
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?)(Z|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
_REGAIN = re.compile(r"regain access on (\d{4}-\d\d-\d\d)(?: at (\d\d:\d\d))?", re.IGNORECASE)
_BEIJING = timezone(timedelta(hours=8))  # what Zhipu's dates without a zone mean
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_IN_BODY = (
    *(("retry_after_ms", 0.001), ("retryAfterMs", 0.001), ("retry_after", 1.0), ("retryAfter", 1.0)),
    *(("retry_after_seconds", 1.0), ("retry-after", 1.0), ("Retry-After", 1.0), ("reset_in_seconds", 1.0)),
    *(("resets_in_seconds", 1.0), ("resets_at", 1.0)),
)
_DELAY = re.compile(r"^([\d.]{1,20})s$")
_IETF = re.compile(r"\b(remaining|reset|r|t)=(\d{1,9})")
LONGEST_VALUE = 100  # characters; a longer header or field is not read


def retry_after(
    headers: Mapping[str, str], error: ErrorBody, now: float, *, limited: bool = False, in_words: bool = True
) -> float | None:
    """Seconds to wait before the same route is called again, or None. `now` is Unix seconds; `limited`: the provider says
    that a rate limit was reached, so the resets of its limits count too. `in_words`: its prose may name a time."""
    for seconds in _named(headers, error, now, limited, in_words):
        if seconds is not None and math.isfinite(seconds):
            return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
    return None


def _named(
    headers: Mapping[str, str], error: ErrorBody, now: float, limited: bool, in_words: bool
) -> Iterator[float | None]:
    for name, scale in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (value := headers.get(name)) is not None:
            yield _header(value, scale, now)
    for node in error.nodes:
        if isinstance(delay := node.get("retryDelay"), str) and (found := _DELAY.match(delay)):
            yield _number(found[1])
        for name, scale in _IN_BODY:
            if type(value := node.get(name)) in (str, int, float):  # no bool
                yield _header(str(value), scale, now)
    if in_words:
        yield _date_in(error, now)
    for found in _IN_WORDS.finditer(QUOTED.sub(" ", error.words) if in_words else ""):
        yield _length(next(filter(None, found.groups())))
    if limited:
        yield _until_a_limit_resets(headers, error, now)


def _length(text: str) -> float:
    """`1m26.4s`, `3 days 4 hours`, `00:01:30`; a number alone is seconds."""
    if ":" in text:
        hours, minutes, seconds = map(int, text.split(":"))
        return hours * 3600 + minutes * 60 + seconds
    return sum(float(number) * _unit(unit) for number, unit in _PARTS.findall(text))


def _unit(name: str) -> float:
    name = name.lower().replace("milli", "ms")
    return next((scale for begin, scale in _UNITS.items() if name.startswith(begin)), 1.0)


def _date_in(error: ErrorBody, now: float) -> float | None:
    """A date in its words; without a zone it is UTC, where Zhipu speaks Beijing's time."""
    if not (found := _DATE_IN_WORDS.search(error.words)):
        return None
    zhipus = bool(_CHINESE.search(error.words)) or any(name in ("zhipu 1308", "zhipu 1310") for name in error.names)
    return _iso(found[1] + (found[2] or ""), now, _BEIJING if zhipus else UTC)


def _until_a_limit_resets(headers: Mapping[str, str], error: ErrorBody, now: float) -> float | None:
    """By the resets that headers name, or OpenRouter's `metadata.headers`: of the limits that are used up; else the soonest,
    or, where nobody says what is left, the longest."""
    inside = [node["headers"] for node in error.nodes if isinstance(node.get("headers"), dict)]
    spent: list[float] = []
    unknown: list[float] = []
    left_over: list[float] = []
    for found in (headers, *({str(k).lower(): str(v) for k, v in each.items()} for each in inside)):
        for name, value in found.items():
            if (seconds := _reset_in(name, value, now)) is None:
                continue
            left = number(found.get(name.replace("reset", "remaining"))) if "reset" in name else None
            (unknown if left is None else spent if left <= 0 else left_over).append(seconds)
        told = dict(_IETF.findall(found.get("ratelimit", "")[:LONGEST_VALUE]))
        left, seconds = number(told.get("remaining") or told.get("r")), number(told.get("reset") or told.get("t"))
        if left is not None and left <= 0 and seconds is not None:
            spent.append(seconds)
    if spent:
        return max(spent)
    return max(unknown, default=None) or min(left_over, default=None)


def _reset_in(name: str, value: str, now: float) -> float | None:
    limits = "ratelimit" in name or name.startswith("anthropic-priority")
    return until_reset(value, now) if limits and ("reset" in name or "timeremaining" in name) else None


def account_reset(error: ErrorBody, now: float) -> float | None:
    """Seconds until a spent quota comes back, if the provider says when: a date, or the end of Google's day."""
    if found := _REGAIN.search(error.words):
        try:
            at = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}+00:00").timestamp()
        except ValueError:
            return None
        return min(max(at - now, 0.0), LONGEST_COOLDOWN)
    if daily_quota(error):
        return _until_midnight_pacific(now)
    until = _date_in(error, now)
    return None if until is None else min(max(until, 0.0), LONGEST_COOLDOWN)


def daily_quota(error: ErrorBody) -> bool:
    """Whether a quota of Google's for the whole day is used up; its RetryInfo then names a time that helps nobody."""
    named = (str(node.get(name, "")) for node in error.nodes for name in ("quotaId", "quota_limit"))
    return "PerDay" in error.words or any("PerDay" in name for name in named)


def _until_midnight_pacific(now: float) -> float:
    try:
        zone: Any = ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:  # a slim image without tzdata: at most an hour late
        zone = timezone(timedelta(hours=-8))
    here = datetime.fromtimestamp(now, UTC).astimezone(zone)
    midnight = (here + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return max(0.0, midnight.timestamp() - now)


def _header(value: str, scale: float, now: float) -> float | None:
    if len(value) > LONGEST_VALUE:
        return None
    number = _number(value.partition(",")[0])  # it may have come twice
    if number is not None:
        return number * scale if number < UNIX_TIME else _since(number, now)
    return until_reset(value, now)


def _since(unix: float, now: float) -> float:
    """Seconds until a Unix time, which OpenRouter writes in milliseconds."""
    return (unix / 1000 if unix > 1000 * UNIX_TIME else unix) - now


def until_reset(text: str | None, now: float) -> float | None:
    """Seconds until a rate limit's reset: a length as OpenAI writes it (`6m0s`, `20ms`), a time as Anthropic does, or a date."""
    if not text or len(text) > LONGEST_VALUE:
        return None
    seconds = number(text)
    if seconds is not None and seconds > UNIX_TIME:
        seconds = _since(seconds, now)
    if seconds is None and _LENGTH.match(text):
        seconds = _length(text)
    if seconds is None:
        seconds = _iso(text, now, UTC)
    if seconds is None:
        try:
            seconds = _in_zone(parsedate_to_datetime(text), UTC).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _iso(text: str, now: float, zone: timezone) -> float | None:
    try:
        return _in_zone(datetime.fromisoformat(text), zone).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _in_zone(at: datetime, zone: timezone) -> datetime:
    """A time without a zone is one of the provider's, and not of this machine's."""
    return at if at.tzinfo is not None else at.replace(tzinfo=zone)


def number(text: str | None) -> float | None:
    """A finite one."""
    found = _number(text) if text else None
    return found if found is not None and math.isfinite(found) else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
