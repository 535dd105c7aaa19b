"""The catalog of failures, as data: what each signal of a provider means and what we do about it.

classify.py checks in this order: the error's code or type, then its wording, then the HTTP status. The recorded answers in
tests/answers/ (one file per provider) test the catalog. Sources: the providers' error pages and the issues of their SDKs
and gateways, as of November 2026.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    RETRY = "retry"  # this route again, at most `retries` times, then the next
    FAILOVER = "failover"  # the next route at once
    NEXT_KEY = "next key"  # this route with the account's next key, then the next route
    DROP = "drop"  # this route without the parameter that it does not know, else elsewhere
    LARGER = "larger"  # only a route with a larger context window, or a shorter context
    ELSEWHERE = "elsewhere"  # this route cannot do what the job asks, another may
    REJECT = "reject"  # no route can fix it: dead, `rejected`
    REFUSE = "refuse"  # a matter for a human: dead, `refused`


UNABLE = frozenset({Action.LARGER, Action.ELSEWHERE, Action.DROP})  # every route like this: the job is at fault


class Breaker(StrEnum):
    COUNT = "count"  # one failure of the route
    NEUTRAL = "neutral"  # says nothing about the route's health


class Scope(StrEnum):
    """What gets the cooldown when a provider names a time to come back, or its account has to be fixed first."""

    ROUTE = "route"
    ACCOUNT = "account"  # every route that uses the same keys of the same provider


ROUTES_RETRIES = 5  # as many as the route is configured to make


@dataclass(frozen=True)
class Failure:
    """One failed attempt. `ambiguous`: it may have been billed.

    `retry_after`: seconds to wait that the provider named. `cooldown`: seconds for which nobody should call the `scope`,
    because the account or the route itself is wrong and an early retry cannot help. `parameter`: the name that the route
    does not know; `instead`: the name that it uses for the same thing.
    """

    code: str
    action: Action
    breaker: Breaker = Breaker.COUNT
    retries: int = ROUTES_RETRIES
    ambiguous: bool = False
    status: int | None = None
    retry_after: float | None = None
    cooldown: float = 0.0
    scope: Scope = Scope.ROUTE
    parameter: str = ""
    instead: str = ""
    detail: str = ""


def _neutral(
    code: str, action: Action, *, cooldown: float = 0.0, scope: Scope = Scope.ROUTE, retries: int = ROUTES_RETRIES
) -> Failure:
    return Failure(code, action, Breaker.NEUTRAL, retries=retries, cooldown=cooldown, scope=scope)


ACCOUNT_COOLDOWN, KEY_COOLDOWN, ROUTE_COOLDOWN = 300.0, 60.0, 60.0  # seconds, where no reset is known

BAD_KEY = _neutral("unauthorized", Action.NEXT_KEY, cooldown=KEY_COOLDOWN, scope=Scope.ACCOUNT)
BILLING = _neutral("billing", Action.FAILOVER, cooldown=ACCOUNT_COOLDOWN, scope=Scope.ACCOUNT)
QUOTA = _neutral("quota", Action.FAILOVER, cooldown=ACCOUNT_COOLDOWN, scope=Scope.ACCOUNT)
RATE_LIMITED = _neutral("rate_limited", Action.RETRY)
NO_MODEL = _neutral("no_such_model", Action.FAILOVER, cooldown=ROUTE_COOLDOWN)
CONTEXT = _neutral("context_length", Action.LARGER)
TOO_LARGE = _neutral("too_large", Action.LARGER)
FILTERED = _neutral("content_filter", Action.REFUSE)
PREFILL = _neutral("prefill_rejected", Action.ELSEWHERE)
UNABLE_TO = _neutral("not_supported", Action.ELSEWHERE)
PARAMETER = _neutral("unsupported_parameter", Action.DROP)
BAD_GENERATION = _neutral("failed_generation", Action.RETRY, retries=1)
OVERLOADED = Failure("overloaded", Action.RETRY)
EMPTY = Failure("empty_answer", Action.FAILOVER)
MALFORMED = Failure("malformed_answer", Action.FAILOVER)

STATUS = {
    400: _neutral("bad_request", Action.REJECT),
    401: BAD_KEY,
    402: BILLING,
    403: _neutral("forbidden", Action.NEXT_KEY, cooldown=ROUTE_COOLDOWN),
    404: NO_MODEL,
    408: Failure("request_timeout", Action.RETRY, retries=1),
    409: _neutral("conflict", Action.RETRY, retries=1),
    413: TOO_LARGE,
    422: _neutral("unprocessable", Action.REJECT),
    429: RATE_LIMITED,
    498: OVERLOADED,  # Groq: flex tier capacity exceeded
    500: Failure("server_error", Action.RETRY, retries=1),
    502: Failure("bad_gateway", Action.FAILOVER, ambiguous=True),
    503: Failure("unavailable", Action.RETRY),
    504: Failure("gateway_timeout", Action.FAILOVER, ambiguous=True),
    529: OVERLOADED,
}

# What an error inside a stream, which began with a 200, would have been as a status: Anthropic's `type`.
KINDS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

# An error's `code`, `type` or `status`, or the name of its inner error: exact.
CODES = {
    "insufficient_quota": QUOTA,
    "organization_spend_limit_exceeded": QUOTA,
    "project_spend_limit_exceeded": QUOTA,
    "organization_usage_limit_exceeded": QUOTA,
    "enforced_spend_limit_reached": QUOTA,
    "contract_spend_limit_reached": QUOTA,
    "credit_balance_exhausted": BILLING,
    "billing_error": BILLING,
    "billing_hard_limit_reached": BILLING,
    "context_length_exceeded": CONTEXT,
    "model_max_prompt_tokens_exceeded": CONTEXT,
    "request_too_large": TOO_LARGE,
    "content_filter": FILTERED,
    "content_policy_violation": FILTERED,
    "ResponsibleAIPolicyViolation": FILTERED,
    "invalid_api_key": BAD_KEY,
    "API_KEY_INVALID": BAD_KEY,
    "model_not_found": NO_MODEL,
    "DeploymentNotFound": NO_MODEL,
    "model_decommissioned": NO_MODEL,
    "invalid_model": NO_MODEL,
    "no_counterpart": UNABLE_TO,  # ours: a dialect cannot say what the job asks for
    "unsupported_parameter": PARAMETER,
    "unknown_parameter": PARAMETER,
    "unsupported_value": PARAMETER,
    "extra_forbidden": PARAMETER,
    "tool_use_failed": BAD_GENERATION,
    "json_validate_failed": BAD_GENERATION,
}

# Searched in the message; the first that is found decides. `quota` in prose alone is an ordinary rate limit.
WORDINGS = tuple(
    (re.compile(pattern, re.IGNORECASE), failure)
    for pattern, failure in (
        (r"reached your specified API usage limits", QUOTA),
        (r"credit balance is too low|insufficient balance|exceeded its monthly spending cap", BILLING),
        (r"prepa(?:id|yment)[^.]* (?:depleted|exhausted)|requires more credits", BILLING),
        (r"api key not valid|invalid api key|incorrect api key", BAD_KEY),
        (r"maximum context length|prompt is too long|context window|context length (?:of|exceeded)", CONTEXT),
        (r"exceeds the maximum number of tokens|too large for model with \d+ maximum context", CONTEXT),
        (r"request too large for", TOO_LARGE),
        (
            r"prefill|expected last role|(?:conversation|last message) must (?:end with|be) (?:a |from the )?user",
            PREFILL,
        ),
        (r"your input was flagged|content management policy|flagged as potentially violating", FILTERED),
        (r"user location is not supported", _neutral("forbidden", Action.FAILOVER, cooldown=ROUTE_COOLDOWN)),
        (
            r"(?:does not|doesn't|do not) support (?:image|vision|audio|tool|function|response.?format|json|structured)",
            UNABLE_TO,
        ),
        (r"\bmodel\b.{0,80} (?:is|has been) (?:deprecated|decommissioned)", NO_MODEL),
        (r"no endpoints found that support", UNABLE_TO),
        (r"maximum allowed number of output tokens|supports at most \d+ completion tokens", UNABLE_TO),
        (
            r"is not found for API version|no such model|model .* does not exist"
            r"|not a valid model|^invalid model|model not exist",
            NO_MODEL,
        ),
    )
)

# How providers name a parameter that they do not know; the group is its name.
UNKNOWN_PARAMETER = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"unsupported (?:parameter|value):? ['\"`]([\w.]+)",
        r"(?:unknown|unrecognized) (?:parameter|name|request argument supplied)[: ]+['\"`]?([\w.]+)",
        r"property ['\"`]([\w.]+)['\"`] is (?:unsupported|not supported)",
        r"(?<![\w.])([\w.]+): Extra inputs are not permitted",
        r"['\"`]([\w.]+)['\"`] is (?:not supported|deprecated|unsupported)",
    )
)
INSTEAD = re.compile(r"use ['\"`](\w+)['\"`] instead", re.IGNORECASE)

# What a job can do without: it steers the style of an answer, or serves the caller's accounting. A cap on tokens is no such
# thing (it bounds the bill): it is only ever renamed.
DROPPABLE = frozenset(
    (
        *("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "logit_bias"),
        *("logprobs", "top_logprobs", "parallel_tool_calls", "reasoning_effort", "verbosity", "prediction"),
        *("user", "store", "metadata", "service_tier", "safety_identifier", "stream_options"),
        *("prompt_cache_key", "prompt_cache_retention"),
    )
)
RENAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
