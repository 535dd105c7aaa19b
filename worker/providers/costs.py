"""What a provider reports as spent this month: OpenAI's and Anthropic's cost endpoints, read with admin keys.

Both lag behind the calls by minutes to hours; they are for a cron beside the ledger, not instead of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx

from producer.errors import FailoverError
from worker.network import DIRECT, Network

TIMEOUT_SECONDS = 20.0
PAGES = 100  # at most, of one month's buckets
ANTHROPIC_VERSION = "2023-06-01"


class CostsUnread(FailoverError):
    """A provider's costs could not be read; why, and how to fix it."""


@dataclass(frozen=True)
class Month:
    """A calendar month in UTC, as the providers bill it."""

    begin: datetime

    @classmethod
    def of(cls, now: datetime) -> Month:
        return cls(now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0))

    def __str__(self) -> str:
        return self.begin.strftime("%Y-%m-%dT%H:%M:%SZ")


def openai_dollars(base_url: str, key: str, month: Month, network: Network = DIRECT) -> Decimal:
    """GET /v1/organization/costs: each result's amount is {value, currency} in dollars."""
    first: dict[str, str | int] = {"start_time": int(month.begin.timestamp()), "bucket_width": "1d", "limit": 31}
    headers = {"Authorization": f"Bearer {key}"}
    pages = _pages(f"{base_url}/v1/organization/costs", headers, first, "OPENAI_ADMIN_KEY", network)
    return _sum("OpenAI", pages, lambda result: (result["amount"]["value"], result["amount"]["currency"]))


def anthropic_dollars(base_url: str, key: str, month: Month, network: Network = DIRECT) -> Decimal:
    """GET /v1/organizations/cost_report: each result's amount is a decimal text in cents."""
    first: dict[str, str | int] = {"starting_at": str(month), "bucket_width": "1d", "limit": 31}
    headers = {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION}
    pages = _pages(f"{base_url}/v1/organizations/cost_report", headers, first, "ANTHROPIC_ADMIN_KEY", network)
    return _sum("Anthropic", pages, lambda result: (result["amount"], result["currency"])) / 100


def openai_limit_dollars(base_url: str, key: str, network: Network = DIRECT) -> Decimal | None:
    """GET /v1/organization/spend_limit: the hard limit of a month, in cents; None when there is none."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS, **network.options(base_url)) as client:
        told = _get(client, f"{base_url}/v1/organization/spend_limit", {}, "OPENAI_ADMIN_KEY", missing_is_none=True)
    cents = told.get("threshold_amount") if told else None
    return Decimal(cents) / 100 if isinstance(cents, int) and cents > 0 else None


def _pages(
    url: str, headers: Mapping[str, str], first: Mapping[str, str | int], key_variable: str, network: Network
) -> Iterator[dict[str, Any]]:
    query = dict(first)
    with httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS, **network.options(url)) as client:
        for _ in range(PAGES):
            page = _get(client, url, query, key_variable)
            assert page is not None  # noqa: S101 - missing_is_none is not asked for
            yield page
            if not page.get("has_more") or not page.get("next_page"):
                return
            query["page"] = page["next_page"]
    raise CostsUnread(f"{url} has no end: {PAGES} pages were read")


def _get(
    client: httpx.Client, url: str, query: Mapping[str, str | int], key_variable: str, *, missing_is_none: bool = False
) -> dict[str, Any] | None:
    try:
        reply = client.get(url, params=query)
    except httpx.HTTPError as error:
        raise CostsUnread(f"{url} does not answer: {type(error).__name__} — it is asked again next time") from None
    except httpx.InvalidURL:
        raise CostsUnread(f"{url} is not a URL") from None
    if reply.status_code in (401, 403):
        raise CostsUnread(
            f"{url} refuses {key_variable} ({reply.status_code}) — it wants an admin key of the organization"
        )
    if reply.status_code == 404 and missing_is_none:
        return None
    try:
        page = reply.json() if reply.status_code == 200 else None
    except ValueError:
        page = None
    if not isinstance(page, dict):
        raise CostsUnread(f"{url} answered {reply.status_code} with what is no page of costs")
    return page


def _sum(name: str, pages: Iterator[dict[str, Any]], read: Callable[[Any], tuple[Any, str]]) -> Decimal:
    """Exactly: binary fractions are for drawing."""
    total = Decimal(0)
    try:
        for page in pages:
            for bucket in page["data"]:
                for result in bucket["results"]:
                    value, currency = read(result)
                    if currency.upper() != "USD":
                        raise CostsUnread(f"{name} bills in {currency}; only USD can be compared with a budget in USD")
                    total += Decimal(str(value))
    except (KeyError, TypeError, AttributeError, ArithmeticError):
        raise CostsUnread(f"{name} answered in a form that is not known here") from None
    if not total.is_finite():
        raise CostsUnread(f"{name} answered with an amount that is no number")
    return total
