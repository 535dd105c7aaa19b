"""What tokens cost: a route's price, and the micro-dollars of a call.

A price is US dollars for a million tokens, so a token costs that many micro-dollars. A call is rounded up to the whole
micro-dollar, once: what is said to be spent is never less than the bill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from worker.routes.usage import read_usage

PER_MILLION = 1_000_000
HOUR_WRITE_FACTOR = 1.6  # what an hour in the cache costs, over five minutes: 2 and 1.25 times the input at Anthropic's
PRIORITY_TIERS, PRIORITY_FACTOR = (
    frozenset({"priority", "fast"}),
    2,
)  # at most; a cheaper tier is counted at the full price

Dollars = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Price(BaseModel):
    """US dollars for a million tokens. `cached_input` and `cache_write`: of a prompt's part that the provider read from, or
    wrote to, its cache; without them it costs as any input."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None

    @property
    def rates(self) -> str:
        """As a row of the ledger has them: input/output/cached input/cache write."""
        rates = (self.input, self.output, self.cached_input, self.cache_write)
        return "/".join("" if rate is None else f"{rate:.12g}" for rate in rates).rstrip("/")


@cache
def price_list() -> str:
    """Which list prices are public_price's."""
    try:
        return f"genai-prices {version('genai-prices')}"
    except PackageNotFoundError:
        return ""


@cache
def public_price(provider: str, model: str) -> Price | None:
    """The list price by genai-prices, where that is installed and knows the model; of its first tier of context."""
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None
    try:
        found = calc_price(Usage(input_tokens=1, output_tokens=1), model, provider_id=provider).model_price
    except LookupError:
        return None
    names = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
    rates: list[Any] = [getattr(found, name) for name in names]
    mtok = [None if rate is None else float(getattr(rate, "base", rate)) for rate in rates]
    if mtok[0] is None or mtok[1] is None:
        return None
    return Price(input=mtok[0], output=mtok[1], cached_input=mtok[2], cache_write=mtok[3])


def cost_micros(price: Price, prompt: int, completion: int, *, cached: int = 0, written: int = 0) -> int:
    """Micro-dollars of a call. `cached` and `written` are parts of `prompt`, and are paid for once."""
    cached = min(cached, prompt)
    written = min(written, prompt - cached)
    of_cached = price.input if price.cached_input is None else price.cached_input
    of_written = price.input if price.cache_write is None else price.cache_write
    micros = (prompt - cached - written) * price.input + completion * price.output
    return math.ceil(round(micros + cached * of_cached + written * of_written, 6))


def billed_micros(price: Price, usage: Mapping[str, Any]) -> int | None:
    """Micro-dollars of a chat completion's `usage`; None if it does not say what was billed: tokens that cannot be read,
    audio without a price of its own."""
    read = read_usage(usage)
    if read is None or read.audio:
        return None
    micros = cost_micros(
        price, read.prompt, read.completion, cached=read.cached, written=read.written + read.written_hour
    )
    if read.written_hour:
        of_written = price.input if price.cache_write is None else price.cache_write
        micros += math.ceil(round(read.written_hour * of_written * (HOUR_WRITE_FACTOR - 1), 6))
    return micros * PRIORITY_FACTOR if read.tier in PRIORITY_TIERS else micros


def dollars(micros: int) -> float:
    return micros / PER_MILLION


def micros(usd: float | None) -> int:
    """Of an amount that `dollars` made; 0 for none."""
    return round((usd or 0.0) * PER_MILLION)
