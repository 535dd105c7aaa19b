"""Formats counts, durations, times and foreign text for people."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

_CONTROL = re.compile(r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def many(count: int, what: str) -> str:
    """`1 job`, `1,200 jobs`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def counted(tenants: Mapping[str, int], most: int = 10) -> str:
    """`acme 12, globex 3 and 4 more`."""
    listed = ", ".join(f"{tenant} {count:,}" for tenant, count in list(tenants.items())[:most])
    return listed + (f" and {len(tenants) - most} more" if len(tenants) > most else "")


def money(usd: float) -> str:
    """`$1,200.00`; amounts below 10 cents with six decimals."""
    return f"${usd:,.2f}" if usd >= 0.1 or not usd else f"${usd:.6f}"


def clock(ms: int) -> str:
    """The time of day of a Unix time in milliseconds: `12:25:15 UTC`."""
    return time.strftime("%H:%M:%S UTC", time.gmtime(ms / 1000))


def lasted(seconds: float) -> str:
    """A duration: `45 seconds`, `20 minutes`, `2.5 hours`."""
    if seconds < 120:
        return f"{max(1, round(seconds))} second" + ("s" if round(seconds) > 1 else "")
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def took(ms: float | None) -> str:
    """A time in milliseconds: `340 ms`, `8.2 s`; `-` for None."""
    return "-" if ms is None else f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def one_line(text: str, most: int) -> str:
    """The text as one printable line of at most `most` characters."""
    beginning = text[: 16 * most]  # a text of megabytes is not read for one line of it
    return cut(" ".join("".join(c if c.isprintable() else " " for c in beginning).split()), most)


def printable(text: str) -> str:
    """The text with its control characters as JSON escapes, such as \\u001b; newlines and tabs stay.

    Control characters are C0, DEL and C1, overrides of the writing direction, which make a text look like another one, and
    lone surrogates, which no terminal takes.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cut(text: str, most: int) -> str:
    """The text cut to at most `most` characters; a cut text ends with …"""
    return text if len(text) <= most else text[: most - 1] + "…"
