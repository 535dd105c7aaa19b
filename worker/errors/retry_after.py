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

from worker.errors.error_body import ErrorBody

LONGEST_RETRY_AFTER = 3600.0
LONGEST_COOLDOWN = 86_400.0
UNIX_TIME = 1e9  # from here on a number is a time, and not a length

_IN_WORDS = re.compile(
    r"(?:try again|retry|wait|available(?: again)?)(?: (?:in|after|for|at least))? "
    r"(?:(\d{1,9})h)?(?:(\d{1,9})m(?![\si]|s))?(?:([\d.]{1,20}) ?(ms|milliseconds|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)?\b)?",
    re.IGNORECASE,
)
_REGAIN = re.compile(r"regain access on (\d{4}-\d\d-\d\d)(?: at (\d\d:\d\d))?", re.IGNORECASE)
_LENGTH = re.compile(r"^(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:([\d.]{1,20})s)?(?:([\d.]{1,20})ms)?$")
_IN_BODY = (
    *(("retry_after_ms", 0.001), ("retryAfterMs", 0.001), ("retry_after", 1.0), ("retryAfter", 1.0)),
    *(("retry_after_seconds", 1.0), ("retry-after", 1.0), ("Retry-After", 1.0), ("reset_in_seconds", 1.0)),
)
_DELAY = re.compile(r"^([\d.]{1,20})s$")
LONGEST_VALUE = 100  # characters; a longer header or field is not read


def retry_after(headers: Mapping[str, str], error: ErrorBody, now: float, *, limited: bool = False) -> float | None:
    """Seconds to wait before the same route is called again, or None. `now` is Unix seconds; `limited`: the provider says
    that a rate limit was reached, so the resets of its limits count too."""
    for seconds in _named(headers, error, now, limited):
        if seconds is not None and math.isfinite(seconds):
            return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
    return None


def _named(headers: Mapping[str, str], error: ErrorBody, now: float, limited: bool) -> Iterator[float | None]:
    for name, scale in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (value := headers.get(name)) is not None:
            yield _header(value, scale, now)
    for node in error.nodes:
        if isinstance(delay := node.get("retryDelay"), str) and (found := _DELAY.match(delay)):
            yield _number(found[1])
        for name, scale in _IN_BODY:
            if type(value := node.get(name)) in (str, int, float):  # no bool
                yield _header(str(value), scale, now)
    if (found := _IN_WORDS.search(error.words)) and any(found.groups()[:3]):
        hours, minutes, seconds, unit = found.groups()
        scale = 0.001 if (unit or "").lower() in ("ms", "milliseconds") else 60.0 if (unit or "")[:1] == "m" else 1.0
        yield int(hours or 0) * 3600 + int(minutes or 0) * 60 + (_number(seconds or "0") or 0.0) * scale
    if limited:
        yield _until_a_limit_resets(headers, error, now)


def _until_a_limit_resets(headers: Mapping[str, str], error: ErrorBody, now: float) -> float | None:
    """By the resets that headers name, or OpenRouter's `metadata.headers`: of the limits that are used up, else the longest."""
    inside = [node["headers"] for node in error.nodes if isinstance(node.get("headers"), dict)]
    spent: list[float] = []
    named: list[float] = []
    for found in (headers, *({str(k).lower(): str(v) for k, v in each.items()} for each in inside)):
        for name, value in found.items():
            if "ratelimit" not in name or "reset" not in name:
                continue
            if (seconds := until_reset(value, now)) is not None:
                left = found.get(name.replace("reset", "remaining"))
                (spent if number(left) == 0 else named).append(seconds)
    return max(spent or named, default=None)


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
    return None


def daily_quota(error: ErrorBody) -> bool:
    """Whether a quota of Google's for the whole day is used up; its RetryInfo then names a time that helps nobody."""
    return any("PerDay" in str(node.get("quotaId", "")) for node in error.nodes)


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
    number = _number(value)
    if number is not None:
        return number * scale
    try:
        return parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None


def until_reset(text: str | None, now: float) -> float | None:
    """Seconds until a rate limit's reset: a length as OpenAI writes it (`6m0s`, `20ms`), a time as Anthropic does."""
    if not text or len(text) > LONGEST_VALUE:
        return None
    seconds = number(text)
    if seconds is not None and seconds > 1000 * UNIX_TIME:
        seconds /= 1000  # milliseconds, as OpenRouter writes them
    if seconds is not None and seconds > UNIX_TIME:
        seconds -= now
    if seconds is None and (found := _LENGTH.match(text)) and any(found.groups()):
        scales = zip(found.groups(), (86_400.0, 3600.0, 60.0, 1.0, 0.001), strict=True)
        seconds = sum((number(part) or 0.0) * scale for part, scale in scales)
    if seconds is None:
        try:
            seconds = datetime.fromisoformat(text).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def number(text: str | None) -> float | None:
    """A finite one."""
    found = _number(text) if text else None
    return found if found is not None and math.isfinite(found) else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
