"""What each route is sent, in its own terms and with which key; and what is fixed when it refuses that.

A parameter that a route refused once is left out, or sent by its other name, for this worker's next jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from worker.errors.catalog import RENAMES, Failure
from worker.errors.classify import redacted
from worker.routes.api_keys import Key, Keys
from worker.routes.parameters import fitted
from worker.routes.route import Route
from worker.routing.attempt import Correction, RouteAttempt
from worker.routing.degrade import without
from worker.routing.execution_context import JobContext
from worker.routing.planner import bound_of

MOST_REFUSED = 50  # parameters and fields of messages that are remembered of a route; one more costs its jobs a call
DETAIL_CHARACTERS = 300  # of a provider's words, in the trail

Refused = dict[tuple[str, str], dict[str, str]]  # by route and model: parameters that were, and what took their place


class RequestBuilder:
    """One worker's."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._refused: Refused = {}

    def attempt_on(self, route: Route, context: JobContext, others: Sequence[Route]) -> RouteAttempt:
        """What the route is sent, in its own terms. `others`: later candidates that could answer now."""
        body: Mapping[str, Any] = context.body
        if lacks := context.plan.lacks.get(route.name):
            body = without(body, lacks, route.entry.capabilities or ())
        if context.plan.output_tokens is not None:
            body = {**body, "max_tokens": bound_of(route, context.plan.output_tokens)}
        body, dropped = fitted(body, route.parameters)
        if context.first_token(route) is not None and _asks_for_usage(route):
            body = {**body, "stream_options": {"include_usage": True}}
        keys = self._keys.given(route.entry.provider, route.keys, context.owner.tenant)
        attempt = RouteAttempt(route, body, others, keys, dropped)
        for parameter, instead in self._refused.get((route.name, route.model), {}).items():
            if correction := attempt.correction(parameter, instead):
                attempt.correct(correction)
        return attempt

    def no_key(self, attempt: RouteAttempt) -> bool:
        """Whether the route wants a key, and none may be used now: without it the call would be an anonymous one."""
        return bool(attempt.keys) and self._keys.best(attempt.keys) is None

    def opens_in(self, route: Route, context: JobContext) -> float:
        """Seconds until a tenant's own keys may be used; ours rest with their account."""
        keys = self._keys.given(route.entry.provider, route.keys, context.owner.tenant)
        return self._keys.opens_in(keys) if keys and keys[0].tenant else 0.0

    def remember(self, attempt: RouteAttempt, failure: Failure, correction: Correction) -> None:
        """Correct the request, and, where the route takes no value of the parameter, those of this worker's next jobs on it."""
        attempt.correct(correction)
        refused = self._refused.setdefault((attempt.route.name, attempt.route.model), {})
        if failure.unknown and len(refused) < MOST_REFUSED:
            renamed = next((name for name in correction.changed if name == RENAMES.get(failure.parameter)), "")
            refused[failure.parameter] = renamed

    def without_secrets(self, failure: Failure, attempt: RouteAttempt) -> Failure:
        """The failure with its detail cut, and without any key that the provider may quote."""
        detail = redacted(failure.detail, "")
        for known in (*attempt.keys, *attempt.route.keys):
            detail = redacted(detail, known.secret)
        return replace(failure, detail=detail[:DETAIL_CHARACTERS])

    def is_current(self, route: Route, key: Key, routes: Sequence[Route]) -> bool:
        """Whether jobs that begin now would use the key too."""
        now = (each for each in routes if each.account == route.account)
        return any(
            key.secret == own.secret for each in now for own in self._keys.given(each.entry.provider, each.keys, "")
        )


def _asks_for_usage(route: Route) -> bool:
    """Whether a stream tells of its tokens only when it is told to."""
    return route.entry.api == "openai" and (route.parameters is None or "stream_options" in route.parameters.takes)
