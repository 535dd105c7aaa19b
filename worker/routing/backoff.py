"""How long to wait between two calls of one execution on one route."""

from __future__ import annotations

import tenacity

from worker.errors.catalog import Action, Failure

FIRST_SECONDS, MAX_SECONDS = 0.2, 10.0
COOLDOWN_MARGIN_SECONDS = 0.1  # the route's cooldown began when Redis heard of it, a moment later than here

_BACKOFF = tenacity.wait_random_exponential(multiplier=FIRST_SECONDS, max=MAX_SECONDS)


def pause_before(failure: Failure, number: int) -> float:
    """Seconds before the call after `number` of them on this route. What was corrected is sent at once."""
    if failure.action is not Action.RETRY:
        return 0.0
    named = failure.retry_after + COOLDOWN_MARGIN_SECONDS if failure.retry_after is not None else 0.0
    state = tenacity.RetryCallState(None, None, (), {})  # type: ignore[arg-type]  # only its number is read
    state.attempt_number = number
    return max(_BACKOFF(state), named)
