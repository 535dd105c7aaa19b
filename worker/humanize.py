"""How people read counts, lengths, times, and what others wrote."""

from __future__ import annotations

import time
from collections.abc import Mapping


def many(count: int, what: str) -> str:
    """`1 job`, `1,200 jobs`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def counted(tenants: Mapping[str, int], most: int = 10) -> str:
    """`acme 12, globex 3 and 4 more`."""
    told = ", ".join(f"{tenant} {count:,}" for tenant, count in list(tenants.items())[:most])
    return told + (f" and {len(tenants) - most} more" if len(tenants) > most else "")


def money(usd: float) -> str:
    """`$1,200.00`; small amounts to the micro-dollar."""
    return f"${usd:,.2f}" if usd >= 0.1 or not usd else f"${usd:.6f}"


def clock(ms: int) -> str:
    """A time of day as people read it."""
    return time.strftime("%H:%M:%S UTC", time.gmtime(ms / 1000))


def lasted(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 120:
        return f"{max(1, round(seconds))} second" + ("s" if round(seconds) > 1 else "")
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def one_line(text: str, most: int) -> str:
    """One line of printable text, cut where nobody would read on."""
    return cut(" ".join("".join(c if c.isprintable() else " " for c in text).split()), most)


def cut(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
