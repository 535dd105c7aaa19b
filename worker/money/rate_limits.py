"""What a route takes in a minute and at once: its `rpm`, `tpm`, `maxConcurrency`, and what its provider says of itself.

A place is reserved with the money (ledger.py), for all workers together. Within a worker, the jobs that wait for a route's
next place stand in line: the first one asks for it, the others wait behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from worker.errors.retry_after import number, until_reset
from worker.money.caps import Budgets
from worker.money.ledger import Ledger, Limit, Refusal, RefusalReason, Reservation
from worker.routes.names import canonical
from worker.routes.route import Route

LONGEST_SLEEP_SECONDS = 0.25  # a place may come free sooner than was said: a call ended that took less
REFUSED_SECONDS = 1.0  # after which a route that has none is asked again

_HEADERS = {  # (limit, remaining, reset), as OpenAI and as Anthropic name them; the others name theirs as OpenAI does
    "requests": (
        ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ),
    "tokens": (
        ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
        ("anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ProviderLimits:
    """What a provider's headers say: its limits a minute, None if it names none; seconds for which nothing is left."""

    requests: int | None = None
    tokens: int | None = None
    rest: float = 0.0


NOTHING = ProviderLimits()


def limits_in_headers(headers: Mapping[str, str], now: float) -> ProviderLimits:
    """`now`: Unix seconds. What cannot be read says nothing."""
    if not any("ratelimit" in name for name in headers):
        return NOTHING
    limits: dict[str, int | None] = {}
    rest = 0.0
    for kind, names in _HEADERS.items():
        limits[kind] = None
        for limit, remaining, reset in names:
            if (most := number(headers.get(limit))) is not None and most >= 1:
                limits[kind] = int(most)
            if number(headers.get(remaining)) == 0:
                rest = max(rest, until_reset(headers.get(reset), now) or 0.0)
    return ProviderLimits(limits["requests"], limits["tokens"], rest)


class RateLimits:
    """One worker's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._told: dict[str, ProviderLimits] = {}
        self._lines: dict[str, asyncio.Lock] = {}
        self._freed: dict[str, asyncio.Event] = {}  # by route: a call of ours has ended

    def of(self, route: Route, budgets: Budgets) -> tuple[Limit, ...]:
        """What holds a call on the route: its own limits, or lower ones that its provider told, and its provider's."""
        entry, limits = route.entry, list[Limit]()
        if entry.rpm or entry.tpm or entry.max_concurrency:
            known = self._told.get(route.name, NOTHING)
            limits.append(
                Limit(
                    f"route {route.name}",
                    _lower(entry.rpm, known.requests),
                    _lower(entry.tpm, known.tokens),
                    entry.max_concurrency,
                )
            )
        if (tokens := budgets.provider(entry.provider).tokens_per_minute) is not None:
            limits.append(Limit(f"provider {canonical(entry.provider)}", tokens=tokens))
        return tuple(limits)

    async def reserve(self, reservation: Reservation, patience: float) -> Refusal | None:
        """`Ledger.reserve`, after waiting up to `patience` seconds for a place. A limit's refusal then names the seconds until
        jobs should stand in line again, so that a place is taken as soon as it is free."""
        if not reservation.limits:
            return await self._ledger.reserve(reservation)
        line = self._lines.setdefault(reservation.route, asyncio.Lock())
        if not line.locked():  # nobody waits: many may ask at once
            refusal = await self._ledger.reserve(reservation)
            if refusal is None or not refusal.for_a_place:
                return refusal
        clock = asyncio.get_running_loop().time
        end, freed = clock() + patience, self._freed.setdefault(reservation.route, asyncio.Event())
        try:
            async with asyncio.timeout_at(end), line:
                while True:
                    freed.clear()
                    refusal = await self._ledger.reserve(reservation)
                    if refusal is None or not refusal.for_a_place:
                        return refusal
                    if clock() + refusal.seconds > end:
                        return replace(refusal, seconds=max(REFUSED_SECONDS, refusal.seconds - patience))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(min(refusal.seconds, LONGEST_SLEEP_SECONDS)):
                            await freed.wait()
        except TimeoutError:
            self._ledger.close(reservation, "released")  # it may just have been granted
            return Refusal(RefusalReason.LIMIT, reservation.limits[0].name, REFUSED_SECONDS)

    def free(self, route: str) -> None:
        """A call has ended: whoever is first in line asks again."""
        if route in self._freed:
            self._freed[route].set()

    def hear(self, route: Route, headers: Mapping[str, str], now: float) -> float:
        """What a reply says of the route; seconds for which it wants no further call."""
        found = limits_in_headers(headers, now)
        if found.requests is not None or found.tokens is not None:
            self._told[route.name] = found
        return found.rest


def _lower(ours: int | None, theirs: int | None) -> int | None:
    """A limit that is ours is lowered by theirs; theirs alone says nothing of minutes, as some count days."""
    return ours if ours is None or theirs is None else min(ours, theirs)
