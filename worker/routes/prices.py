"""Prices of routes, and the cost of calls in micro-dollars.

A price is in US dollars per million tokens, which is micro-dollars per token. The cost of a call is rounded up once, to a
whole micro-dollar, so that the recorded cost is never below the bill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from worker.routes.usage import Usage, read_usage

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

PER_MILLION = 1_000_000
HOUR_WRITE_FACTOR = 1.6  # what an hour in the cache costs, over five minutes: 2 and 1.25 times the input at Anthropic's
PRIORITY_TIERS, PRIORITY_FACTOR = (
    frozenset({"priority", "fast"}),
    2,
)  # at most; a cheaper tier is counted at the full price

Dollars = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Price(BaseModel):
    """US dollars per million tokens. `cached_input` and `cache_write`: for prompt tokens that the provider read from, or
    wrote to, its cache; None: they cost as much as `input`."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None

    @property
    def rates(self) -> str:
        """The price as text for ledger rows: input/output/cached input/cache write."""
        rates = (self.input, self.output, self.cached_input, self.cache_write)
        return "/".join("" if rate is None else f"{rate:.12g}" for rate in rates).rstrip("/")


@cache
def price_list() -> str:
    """The name and version of the price list that `public_price` uses; "" if none is installed."""
    try:
        return f"genai-prices {version('genai-prices')}"
    except PackageNotFoundError:
        return ""


@cache
def public_price(provider: str, model: str) -> Price | None:
    """The list price in genai-prices; None if that is not installed or does not know the model. If the price depends on the
    length of the context, it is the one of the shortest contexts."""
    if (listed := _listed(provider, model)) is None:
        return None
    found = listed.model_price
    names = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
    rates: list[Any] = [getattr(found, name) for name in names]
    mtok = [None if rate is None else float(getattr(rate, "base", rate)) for rate in rates]
    if mtok[0] is None or mtok[1] is None:
        return None
    return Price(input=mtok[0], output=mtok[1], cached_input=mtok[2], cache_write=mtok[3])


def public_context_window(provider: str, model: str) -> int | None:
    """The tokens of the model's context window in genai-prices; None as for `public_price`."""
    return None if (listed := _listed(provider, model)) is None else listed.model.context_window


def _listed(provider: str, model: str) -> PriceCalculation | None:
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None
    try:
        return calc_price(Usage(input_tokens=1, output_tokens=1), model, provider_id=provider)
    except LookupError:
        return None


def cost_micros(price: Price, prompt: int, completion: int, *, cached: int = 0, written: int = 0) -> int:
    """Micro-dollars of a call. The arguments are tokens; `cached` and `written` are parts of `prompt` and count once."""
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
    return None if read is None else micros_of_tokens(price, read)


def micros_of_tokens(price: Price, read: Usage) -> int | None:
    """As `billed_micros`, of a usage that was read."""
    if read.audio:
        return None
    micros = cost_micros(
        price, read.prompt, read.completion, cached=read.cached, written=read.written + read.written_hour
    )
    if read.written_hour:
        of_written = price.input if price.cache_write is None else price.cache_write
        micros += math.ceil(round(read.written_hour * of_written * (HOUR_WRITE_FACTOR - 1), 6))
    return micros * PRIORITY_FACTOR if read.tier in PRIORITY_TIERS else micros


def dollars(micros: int) -> float:
    """Micro-dollars in US dollars."""
    return micros / PER_MILLION


def micros(usd: float | None) -> int:
    """US dollars in micro-dollars, for an amount that `dollars` returned; 0 for None."""
    return round((usd or 0.0) * PER_MILLION)
