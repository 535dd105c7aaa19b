"""The entries of a job's trail: what an execution planned, which routes it did not try and why, every attempt."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

BROKEN_OFF = "broken_off"  # the outcome of an attempt that the worker's drain ended


class Planned(BaseModel):
    """What an execution set out to do, as the trail tells it. Money in US dollars.

    `candidates`: the routes that were kept, in the order to try them. What was known of them when they were ordered:
    `estimates_usd`, what a call would cost at most by the estimate of its tokens, and `p95_ms`, their latency lately.
    """

    model_config = ConfigDict(frozen=True)

    execution: int
    order: str  # listed | cost | latency | pinned | bypass
    candidates: tuple[str, ...]
    baseline: str | None = None  # the route that costs are compared with
    max_cost_usd: float | None = None
    spent_usd: float = 0.0  # by the attempts before it, or perhaps
    estimates_usd: dict[str, float] = Field(default_factory=dict)
    p95_ms: dict[str, int] = Field(default_factory=dict)
    reduced: str | None = None  # why it was to cost less than usual


class Attempt(BaseModel):
    """One HTTP call to a provider, as the trail tells it. Times in milliseconds, money in US dollars."""

    model_config = ConfigDict(frozen=True)

    execution: int  # counted from 1
    route: str
    tier: Literal["hot", "warm"]
    outcome: str  # "ok" or a failure's code, as in worker/errors/classify.py
    status: int | None = None  # HTTP
    ms: int = 0
    ambiguous: bool = False  # the provider may have done, and billed, the work
    probe: bool = False  # made to see whether an open route has recovered
    excused: bool = False  # in an execution that ended for want of a route that was paused
    at_ms: int = 0  # when it began, Unix time of the worker
    breaker: str = "closed"  # how it stood when the attempt was let through
    key: str | None = None  # where the key came from, never the key: `environment OPENAI_API_KEY#2`
    dropped: tuple[str, ...] = ()  # parameters of the job that the route was not sent, or was sent by another name
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    may_cost_usd: float | None = None  # at most, if an ambiguous attempt was billed after all
    detail: str | None = None

    @property
    def charged(self) -> bool:
        """Whether it counts toward the policy's cap: no probe does, none that our own drain broke off or a pause excused."""
        return not (self.probe or self.excused) and self.outcome != BROKEN_OFF


class RejectedFor(StrEnum):
    """Why a route was not tried: a closed set. None of these made a network call."""

    LACKS_CAPABILITY = "lacks_capability"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"  # one that no answer would be right without
    CONTEXT_WINDOW = "context_window"
    OUTPUT_LIMIT = "output_limit"
    OVER_COST = "over_cost"
    NO_PRICE = "no_price"  # it cannot be held to a cap on costs
    OVER_BUDGET = "over_budget"  # a month's cap is used up
    LIMITED = "limited"  # its rpm, tpm or concurrency is
    NO_LEDGER = "no_ledger"  # Redis is away, or its ledger cannot be read, so that no cap and no limit can be held
    TOO_SLOW = "too_slow"
    NOT_PINNED = "not_pinned"
    CANARY = "canary"  # it takes some jobs only, and this one is not among them
    BYPASS = "bypass"  # BYPASS_ROUTER is on: only the first route is called
    DISABLED = "disabled"  # by its kill switch
    PAUSED = "paused"  # its provider is
    BREAKER = "breaker"
    RESTS = "rests"  # until a time that its provider named, or its account is fixed
    NO_ATTEMPTS = "no_attempts"
    NO_TIME = "no_time"


class Rejection(BaseModel):
    """A route that an execution did not try, and why: `code` for programs, `rejected` in words."""

    model_config = ConfigDict(frozen=True)

    execution: int
    route: str
    tier: Literal["hot", "warm"]
    rejected: str
    code: RejectedFor | None = None  # None: written by an older release


TrailEntry = Planned | Attempt | Rejection
