"""The catalog of failures, as data: what each signal of a provider means and what we do about it.

classify.py checks in this order: the error's code or type (codes.py), then its wording (wordings.py), then the HTTP status.
The recorded answers in tests/answers/ test all three: one file for each provider, and those that users of other tools
reported. Sources: the providers' error pages and the issues of their SDKs and gateways, as of November 2026.
"""

from __future__ import annotations

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


def is_success(status: int) -> bool:
    """Whether an answer came. Some gateways say 201 and its kin."""
    return 200 <= status < 300


ROUTES_RETRIES = 5  # as many as the route is configured to make


@dataclass(frozen=True)
class Failure:
    """One failed attempt. `ambiguous`: it may have been billed.

    `retry_after`: seconds to wait that the provider named. `cooldown`: seconds for which nobody should call the `scope`,
    because the account or the route itself is wrong and an early retry cannot help. `parameter`: the name that the route
    does not take; `instead`: the name that it uses for the same thing; `unknown`: it takes no value of it, so later jobs are
    sent without it.
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
    unknown: bool = False
    detail: str = ""

    @property
    def may_be_billed(self) -> bool:
        """Whether an answer of this kind may stand on the bill although it cannot be used."""
        return self.ambiguous or (is_success(self.status or 0) and self.code not in _NEVER_BILLED)


_NEVER_BILLED = frozenset(
    {"rate_limited", "quota", "billing", "unauthorized", "forbidden", "no_such_model", "overloaded"}
)


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
UNKNOWN_PARAMETERS = frozenset(
    {"unsupported_parameter", "unknown_parameter", "extra_forbidden", "UnsupportedParamsError"}
)
BAD_GENERATION = _neutral("failed_generation", Action.RETRY, retries=1)
FORBIDDEN_HERE = _neutral("forbidden", Action.FAILOVER, cooldown=ROUTE_COOLDOWN)
OVERLOADED = Failure("overloaded", Action.RETRY)
EMPTY = Failure("empty_answer", Action.FAILOVER)
MALFORMED = Failure("malformed_answer", Action.FAILOVER)

# A request that the provider does not take, for a reason that nobody here knows: another route may take it, and the job is
# dead only when none did. Where a field of the job is named, no route will (worker/errors/classify.py).
BAD_REQUEST = _neutral("bad_request", Action.ELSEWHERE)
UNPROCESSABLE = _neutral("unprocessable", Action.ELSEWHERE)
UNKNOWN_4XX = _neutral("client_error", Action.ELSEWHERE)
OVER_TOKEN_LIMIT = _neutral("over_token_limit", Action.LARGER)  # one job is more than may be sent in a minute
TOO_DEAR = _neutral("credit_too_small", Action.ELSEWHERE)  # for this one job's size, and no word on the account
LOCAL_TROUBLE = _neutral("local_trouble", Action.FAILOVER)  # ours, and no word on the route
ANSWER_TOO_LONG = Failure(
    "answer_too_long", Action.FAILOVER, Breaker.NEUTRAL, ambiguous=True
)  # longer than our own limit
BAD_GATEWAY = Failure("bad_gateway", Action.FAILOVER, ambiguous=True)
GATEWAY_TIMEOUT = Failure("gateway_timeout", Action.FAILOVER, ambiguous=True)
UNKNOWN_END = Failure("unknown_end", Action.FAILOVER, ambiguous=True)

STATUS = {
    400: BAD_REQUEST,
    401: BAD_KEY,
    402: BILLING,
    403: _neutral("forbidden", Action.NEXT_KEY, cooldown=ROUTE_COOLDOWN),
    404: NO_MODEL,
    410: NO_MODEL,
    408: Failure("request_timeout", Action.RETRY, retries=1),
    409: _neutral("conflict", Action.RETRY, retries=1),
    413: TOO_LARGE,
    422: UNPROCESSABLE,
    429: RATE_LIMITED,
    498: OVERLOADED,  # Groq: flex tier capacity exceeded
    500: Failure("server_error", Action.RETRY, retries=1),
    502: BAD_GATEWAY,
    503: Failure("unavailable", Action.RETRY),
    504: GATEWAY_TIMEOUT,
    520: BAD_GATEWAY,  # Cloudflare's own, from here on: 524 is its time-out after the request was sent
    521: Failure("unavailable", Action.FAILOVER),
    522: Failure("unavailable", Action.FAILOVER),
    523: Failure("unavailable", Action.FAILOVER),
    524: GATEWAY_TIMEOUT,
    525: Failure("unavailable", Action.FAILOVER),
    526: Failure("unavailable", Action.FAILOVER),
    530: Failure("unavailable", Action.FAILOVER),
    529: OVERLOADED,
}

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

# The fields of a chat-completions body: an error that names one of them may be the job's own.
JOB_FIELDS = DROPPABLE | {
    *(
        "messages",
        "model",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "response_format",
        "stop",
        "n",
        "stream",
    ),
    *(
        "max_tokens",
        "max_completion_tokens",
        "modalities",
        "audio",
        "thinking",
        "random_seed",
        "safe_prompt",
        "web_search_options",
    ),
}
