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

LONGEST_RETRY_AFTER = 3600.0
LONGEST_COOLDOWN = 86_400.0
UNIX_TIME = 1e9  # from here on a number is a time, and not a length

_IN_WORDS = re.compile(
    r"(?:try again|retry) (?:in|after) (?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+) ?(ms|s(?:ec(?:ond)?s?)?)?\b)?",
    re.IGNORECASE,
)
_REGAIN = re.compile(r"regain access on (\d{4}-\d\d-\d\d)(?: at (\d\d:\d\d))?", re.IGNORECASE)
_LENGTH = re.compile(r"^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:([\d.]+)s)?(?:([\d.]+)ms)?$")
_DELAY = re.compile(r"^([\d.]+)s$")


def retry_after(headers: Mapping[str, str], error: Mapping[str, Any], now: float) -> float | None:
    """Seconds to wait before the same route is asked again, or None. `now` is Unix seconds."""
    for seconds in _named(headers, error, now):
        if seconds is not None and math.isfinite(seconds):
            return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
    return None


def _named(headers: Mapping[str, str], error: Mapping[str, Any], now: float) -> Iterator[float | None]:
    for name, scale in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (value := headers.get(name)) is not None:
            yield _header(value, scale, now)
    for detail in details(error):
        if isinstance(delay := detail.get("retryDelay"), str) and (found := _DELAY.match(delay)):
            yield _number(found[1])
    message = error.get("message")
    if isinstance(message, str) and (found := _IN_WORDS.search(message)) and any(found.groups()[:3]):
        hours, minutes, seconds, unit = found.groups()
        scale = 0.001 if (unit or "").lower() == "ms" else 1.0
        yield int(hours or 0) * 3600 + int(minutes or 0) * 60 + (_number(seconds or "0") or 0.0) * scale


def rest(error: Mapping[str, Any], now: float) -> float | None:
    """Seconds until a spent quota comes back, if the provider says when: a date, or the end of Google's day."""
    message = error.get("message")
    if isinstance(message, str) and (found := _REGAIN.search(message)):
        try:
            at = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}+00:00").timestamp()
        except ValueError:
            return None
        return min(max(at - now, 0.0), LONGEST_COOLDOWN)
    if daily_quota(error):
        return _until_midnight_pacific(now)
    return None


def daily_quota(error: Mapping[str, Any]) -> bool:
    """Whether a quota of Google's for the whole day is used up; its RetryInfo then names a time that helps nobody."""
    violations = [violation for detail in details(error) for violation in detail.get("violations") or ()]
    return any("PerDay" in str(v.get("quotaId", "")) for v in violations if isinstance(v, dict))


def details(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Google's `details`, as far as they are objects."""
    found = error.get("details")
    yield from (detail for detail in found if isinstance(detail, dict)) if isinstance(found, list) else ()


def _until_midnight_pacific(now: float) -> float:
    try:
        zone: Any = ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:  # a slim image without tzdata: at most an hour late
        zone = timezone(timedelta(hours=-8))
    here = datetime.fromtimestamp(now, UTC).astimezone(zone)
    midnight = (here + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return max(0.0, midnight.timestamp() - now)


def _header(value: str, scale: float, now: float) -> float | None:
    number = _number(value)
    if number is not None:
        return number * scale
    try:
        return parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None


def until_reset(text: str | None, now: float) -> float | None:
    """Seconds until a rate limit's reset: a length as OpenAI writes it (`6m0s`, `20ms`), a time as Anthropic does."""
    if not text:
        return None
    seconds = number(text)
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
