"""The inputs of the cost plan: what each one is, its unit, and where its value comes from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum


class Origin(StrEnum):
    """Where a value comes from. ASSUMED: nobody measured or configured it, so a person should look at it."""

    MEASURED = "measured"
    CONFIGURED = "configured"
    ASSUMED = "assumption"


@dataclass(frozen=True)
class Given:
    """A value, and where it comes from (`source`, in words)."""

    value: float
    origin: Origin
    source: str

    @property
    def told(self) -> str:
        """`assumption: nothing was measured`."""
        return f"{self.origin}: {self.source}"


@dataclass(frozen=True)
class Field:
    """What an input is. `name`: of the attribute, and of the cell; `highest`: None without a bound; `whole`: no fractions;
    `form`: how a spreadsheet shows it."""

    name: str
    title: str
    unit: str
    meaning: str
    form: str
    highest: float | None = None
    whole: bool = False


COUNT, USD, SECONDS, SHARE, RATE = "#,##0", "#,##0.00", "0.0##", "0.0#%", "0.000#"
MOST_RETRIES = 5  # `retries` of routes.json allows no more

FIELDS = (
    Field("requests", "Requests a month", "requests", "that need a call: answers from the cache are left out", COUNT),
    Field("tokens_in", "Tokens in", "tokens a request", "of the prompt, on average", COUNT),
    Field("tokens_out", "Tokens out", "tokens a request", "of the answer, on average", COUNT),
    Field("redis_usd", "Redis", "USD a month", "a small managed server is enough; 0 if you have one", USD),
    Field(
        "deadline_seconds",
        "Deadline",
        "seconds",
        "from the first call on; later the request waits in the queue",
        SECONDS,
    ),
    Field("first_wait_seconds", "Wait before the first retry", "seconds", "at most: jitter makes it shorter", SECONDS),
    Field(
        "longest_wait_seconds",
        "Longest wait before a retry",
        "seconds",
        "each wait is twice the one before, up to this",
        SECONDS,
    ),
    Field(
        "retry_fails",
        "A retry fails as well",
        "share",
        "of retries on a route whose call just failed",
        SHARE,
        highest=1,
    ),
    Field(
        "same_provider_fails",
        "The provider's next route fails as well",
        "share",
        "of calls on another route of a provider, one of whose routes just failed: outages hit all of them",
        SHARE,
        highest=1,
    ),
    Field(
        "failed_billed",
        "Failed calls that are billed",
        "share",
        "timeouts, mostly; errors cost nothing",
        SHARE,
        highest=1,
    ),
)
ROUTE_FIELDS = (
    Field("input_price", "Price in", "USD per million tokens", "of prompts", USD),
    Field("output_price", "Price out", "USD per million tokens", "of answers", USD),
    Field(
        "failure_rate",
        "Failure rate",
        "share",
        "of calls that fail, while no call of the request failed before",
        SHARE,
        highest=1,
    ),
    Field(
        "retries",
        "Retries",
        "calls",
        "on this route after its first call, before the next route",
        COUNT,
        MOST_RETRIES,
        whole=True,
    ),
    Field("p50_seconds", "Answer p50", "seconds", "half of the answers take no longer", SECONDS),
    Field("p95_seconds", "Answer p95", "seconds", "95% of the answers take no longer", SECONDS),
    Field(
        "failed_seconds",
        "Failure after",
        "seconds",
        "from a call until it has failed; a timeout takes the whole `timeoutSeconds`",
        SECONDS,
    ),
)


@dataclass(frozen=True)
class RouteInputs:
    """The inputs of one route; ROUTE_FIELDS says what they are."""

    name: str
    provider: str
    tier: str
    input_price: Given
    output_price: Given
    failure_rate: Given
    retries: Given
    p50_seconds: Given
    p95_seconds: Given
    failed_seconds: Given


@dataclass(frozen=True)
class Inputs:
    """All inputs; FIELDS says what they are. `routes`: in the order in which they are tried, at least one; `routes_from`:
    which map they are of, in words."""

    requests: Given
    tokens_in: Given
    tokens_out: Given
    redis_usd: Given
    deadline_seconds: Given
    first_wait_seconds: Given
    longest_wait_seconds: Given
    retry_fails: Given
    same_provider_fails: Given
    failed_billed: Given
    routes: tuple[RouteInputs, ...]
    routes_from: str = ""


def given(of: Inputs | RouteInputs, field: Field) -> Given:
    """The value of a field."""
    found: Given = getattr(of, field.name)
    return found


def origins(inputs: Inputs) -> Counter[Origin]:
    """How many values come from where."""
    of_routes = (given(route, field).origin for route in inputs.routes for field in ROUTE_FIELDS)
    return Counter([*(given(inputs, field).origin for field in FIELDS), *of_routes])
