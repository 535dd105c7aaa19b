"""The entries of a job's trail: the plan of an execution, the routes that it did not try and why, and every attempt."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

BROKEN_OFF = "broken_off"  # the outcome of an attempt that the worker's drain cut off


class Planned(BaseModel):
    """The plan of one execution. Money in US dollars.

    `candidates`: the routes to try, in order. `estimates_usd`: the estimated maximum cost of a call on each route, and
    `p95_ms`: each route's recent latency, both as known when the plan was made.
    """

    model_config = ConfigDict(frozen=True)

    execution: int
    order: str  # listed | cost | latency | pinned | bypass
    candidates: tuple[str, ...]
    baseline: str | None = None  # the route that costs are compared with
    max_cost_usd: float | None = None
    spent_usd: float = 0.0  # cost of all attempts before it; ambiguous ones count at their maximum
    estimates_usd: dict[str, float] = Field(default_factory=dict)
    p95_ms: dict[str, int] = Field(default_factory=dict)
    reduced: str | None = None  # why it ran in cost-saving mode


class Attempt(BaseModel):
    """One HTTP call to a provider. Times in milliseconds, money in US dollars."""

    model_config = ConfigDict(frozen=True)

    execution: int  # counted from 1
    route: str
    tier: Literal["hot", "warm"]
    outcome: str  # "ok" or a failure's code, as in worker/errors/classify.py
    status: int | None = None  # HTTP
    ms: int = 0
    first_token_ms: int | None = None  # from its begin to the first token of an answer that was streamed
    ambiguous: bool = False  # the provider may have done, and billed, the work
    probe: bool = False  # made to see whether an open route has recovered
    excused: bool = False  # not counted, because its execution ended only because another route was paused
    at_ms: int = 0  # when it began, Unix time of the worker
    breaker: str = "closed"  # the breaker's state when the attempt was admitted
    key: str | None = None  # where the key came from, never the key: `environment OPENAI_API_KEY#2`
    dropped: tuple[str, ...] = ()  # parameters of the job that were dropped or renamed for the route
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    may_cost_usd: float | None = None  # the maximum cost of an ambiguous attempt, which may have been billed
    detail: str | None = None

    @property
    def charged(self) -> bool:
        """Whether it counts toward the policy's cap on attempts. Not counted: probes, excused attempts, and attempts that
        the drain cut off."""
        return not (self.probe or self.excused) and self.outcome != BROKEN_OFF


class RejectedFor(StrEnum):
    """Why a route was not tried: a closed set. None of these made a network call."""

    LACKS_CAPABILITY = "lacks_capability"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"  # one that cannot be dropped
    CONTEXT_WINDOW = "context_window"
    OUTPUT_LIMIT = "output_limit"
    OVER_COST = "over_cost"
    NO_PRICE = "no_price"  # without a price no cap on costs can be enforced
    OVER_BUDGET = "over_budget"  # a month's cap is used up
    LIMITED = "limited"  # its rpm, tpm or concurrency is used up
    NO_LEDGER = "no_ledger"  # Redis is away, or the ledger cannot be read, so that no cap or limit can be enforced
    TOO_SLOW = "too_slow"
    NOT_PINNED = "not_pinned"
    CANARY = "canary"  # it takes only some of the jobs, and not this one
    BYPASS = "bypass"  # BYPASS_ROUTER is on: only the first route is called
    DISABLED = "disabled"  # its kill switch is set
    PAUSED = "paused"  # its provider is paused
    BREAKER = "breaker"  # its breaker is open or half-open
    RESTS = "rests"  # it is in a cooldown that its provider asked for, or that its account needs
    NO_ATTEMPTS = "no_attempts"  # the job's attempts are used up
    NO_TIME = "no_time"  # the deadline is too near
    LOCAL = "local"  # trouble of the worker's own machine, such as too many open files: no request left it


class Rejection(BaseModel):
    """A route that an execution did not try, and why: `code` for programs, `rejected` as text for people."""

    model_config = ConfigDict(frozen=True)

    execution: int
    route: str
    tier: Literal["hot", "warm"]
    rejected: str
    code: RejectedFor | None = None  # None: written by an older release


TrailEntry = Planned | Attempt | Rejection
