"""Why a job waits: a closed set, for programs. The text for people is `JobResult.waiting_for`."""

from __future__ import annotations

from enum import StrEnum


class WaitReason(StrEnum):
    """What has to happen before a waiting job runs again."""

    NOT_BEFORE = "not_before"  # its time has not come
    RETRY = "retry"  # it failed on every route; its backoff must end
    ROUTE = "route"  # a route must open: breakers are open, or routes are in a cooldown
    PAUSED_ROUTE = "paused_route"  # operators paused a route that could take it, and the other routes failed
    ABLE_ROUTE = "able_route"  # the routes that were tried do not support the job; another one may
    SLOW_ROUTE = "slow_route"  # every route is slower than the policy allows
    PINNED_ROUTE = "pinned_route"  # the routes that its policy pins are left out of routes.json now
    BUDGET = "budget"  # a cap of this month has too little left
    BUDGET_RESERVED = "budget_reserved"  # what is left of a cap is reserved by calls that run
    RATE_LIMIT = "rate_limit"  # a route or a provider is at its limit of requests
    TOKENS = "tokens"  # a route or a provider is at its limit of tokens per minute
    REDIS = "redis"  # Redis did not answer, so that its hard cap or limit could not be enforced
    LEDGER = "ledger"  # the ledger holds data that cannot be read
    LOCAL = "local"  # its worker's machine must recover: open files, memory, DNS, proxy or network
    NEWER_WORKER = "newer_worker"  # its schema is newer than this worker
