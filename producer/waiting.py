"""Why a job waits: a closed set, for programs. The text for people stands beside it (`JobResult.waiting_for`)."""

from __future__ import annotations

from enum import StrEnum


class WaitReason(StrEnum):
    """What has to happen before a waiting job runs again."""

    RETRY = "retry"  # it failed on every route; its backoff has to end
    ROUTE = "route"  # a route has to open: breakers are open, or routes cool down
    PAUSED_ROUTE = "paused_route"  # operators paused a route that could take it, and the other routes failed
    ABLE_ROUTE = "able_route"  # the routes that were tried cannot do it; another one may be able to
    SLOW_ROUTE = "slow_route"  # every route is slower than the policy allows
    PINNED_ROUTE = "pinned_route"  # the routes of its pin are left out of the routing map now
    BUDGET = "budget"  # a cap of this month has too little left
    BUDGET_RESERVED = "budget_reserved"  # calls that run now hold what is left of a cap
    RATE_LIMIT = "rate_limit"  # a route or a provider is at its limit of requests
    TOKENS = "tokens"  # ... at its limit of tokens in this minute
    REDIS = "redis"  # Redis did not answer, and a hard cap has to be held
    LEDGER = "ledger"  # the ledger holds what cannot be read
    NEWER_WORKER = "newer_worker"  # its schema is newer than this worker
