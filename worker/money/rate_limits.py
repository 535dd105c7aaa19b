"""The rate limits of routes: `rpm`, `tpm`, `maxConcurrency`, and the lower limits that a provider's headers name.

A slot on the route is reserved together with the cost (ledger.py), for all workers together. Within a worker, jobs that
wait for a slot queue up per route: only the first one asks the ledger.
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

LONGEST_SLEEP_SECONDS = 0.25  # a slot may be free sooner than the ledger said, when a call uses less than it reserved
REFUSED_SECONDS = 1.0  # a route without a free slot is asked again after it

# (limit, remaining, reset) of OpenAI and of Anthropic; other providers use OpenAI's names
_HEADERS = {
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
    """The limits in a provider's headers: requests and tokens, None if not named. `rest`: seconds until one that is used up
    is reset."""

    requests: int | None = None
    tokens: int | None = None
    rest: float = 0.0


NOTHING = ProviderLimits()


def limits_in_headers(headers: Mapping[str, str], now: float) -> ProviderLimits:
    """Read a response's headers. `now`: Unix seconds. Values that cannot be read are ignored."""
    if not any("ratelimit" in name for name in headers):
        return NOTHING
    limits: dict[str, int | None] = {}
    rest = 0.0
    for kind, names in _HEADERS.items():
        limits[kind] = None
        for limit, remaining, reset in names:
            if (most := number(headers.get(limit))) is not None and most >= 1:
                limits[kind] = int(most)
            if (left := number(headers.get(remaining))) is not None and left <= 0:
                rest = max(rest, until_reset(headers.get(reset), now) or 0.0)
    return ProviderLimits(limits["requests"], limits["tokens"], rest)


class RateLimits:
    """The rate limits as one worker applies them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._from_headers: dict[str, ProviderLimits] = {}  # by route
        self._waiting: dict[str, asyncio.Lock] = {}  # by route: held by the first job that waits for a slot
        self._freed: dict[str, asyncio.Event] = {}  # by route: set when a call of this worker has ended

    def of(self, route: Route, budgets: Budgets) -> tuple[Limit, ...]:
        """The limits of a call on the route: the route's (lowered by the provider's headers), and the provider's."""
        entry, limits = route.entry, list[Limit]()
        if entry.rpm or entry.tpm or entry.max_concurrency:
            known = self._from_headers.get(route.name, NOTHING)
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
        """`Ledger.reserve`, waiting up to `patience` seconds for a slot. If a limit refuses the call, the refusal's
        `seconds` say when the job should wait here again, early enough to take the slot as soon as it is free."""
        if not reservation.limits:
            return await self._ledger.reserve(reservation)
        waiting = self._waiting.setdefault(reservation.route, asyncio.Lock())
        if not waiting.locked():  # no job waits for a slot: ask at once
            refusal = await self._ledger.reserve(reservation)
            if refusal is None or not refusal.for_a_place:
                return refusal
        clock = asyncio.get_running_loop().time
        end, freed = clock() + patience, self._freed.setdefault(reservation.route, asyncio.Event())
        try:
            async with asyncio.timeout_at(end), waiting:
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
            self._ledger.close(reservation, "released")  # Redis may have granted it just now
            return Refusal(RefusalReason.LIMIT, reservation.limits[0].name, REFUSED_SECONDS)

    def free(self, route: str) -> None:
        """A call on the route has ended: the first waiting job asks again."""
        if route in self._freed:
            self._freed[route].set()

    def hear(self, route: Route, headers: Mapping[str, str], now: float) -> float:
        """Remember the limits in a response's headers. Returns the seconds for which the provider wants no further call."""
        limits = limits_in_headers(headers, now)
        if limits.requests is not None or limits.tokens is not None:
            self._from_headers[route.name] = limits
        return limits.rest


def _lower(ours: int | None, theirs: int | None) -> int | None:
    """Our limit, lowered by the provider's. The provider's alone is not used: it may be a limit per day, not per minute."""
    return ours if ours is None or theirs is None else min(ours, theirs)
