"""What each route is sent, in its own terms and with which key; and what is mended when it refuses that.

A parameter that a route refused once is left out, or sent by its other name, for this worker's next jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from worker.errors.catalog import Action, Failure
from worker.errors.classify import redacted
from worker.routes.api_keys import Key, Keys
from worker.routes.parameters import fitted
from worker.routes.route import Route
from worker.routing.degrade import without
from worker.routing.execution_context import Visit, Walk
from worker.routing.planner import bound_of

DETAIL_CHARACTERS = 300  # of a provider's words, in the trail

Refused = dict[tuple[str, str], dict[str, str]]  # by route and model: parameters that were, and what took their place


class Visits:
    """One worker's."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._refused: Refused = {}

    def of(self, route: Route, walk: Walk, *, another_waits: bool) -> Visit:
        """What the route is sent, in its own terms."""
        body: Mapping[str, Any] = walk.body
        if lacks := walk.plan.lacks.get(route.name):
            body = without(body, lacks, route.entry.capabilities or ())
        if walk.plan.output_tokens is not None:
            body = {**body, "max_tokens": bound_of(route, walk.plan.output_tokens)}
        body, dropped = fitted(body, route.parameters)
        if walk.first_token(route) is not None and _asks_for_usage(route):
            body = {**body, "stream_options": {"include_usage": True}}
        keys = self._keys.given(route.entry.provider, route.keys, walk.tenant)
        visit = Visit(route, body, another_waits, keys, dropped)
        for parameter, instead in self._refused.get((route.name, route.model), {}).items():
            visit.without(parameter, instead)
        return visit

    def no_key(self, visit: Visit) -> bool:
        """Whether the route wants a key, and none may be used now: without it the call would be an anonymous one."""
        return bool(visit.keys) and self._keys.best(visit.keys) is None

    def opens_in(self, route: Route, walk: Walk) -> float:
        """Seconds until a tenant's own keys may be used; ours rest with their account."""
        keys = self._keys.given(route.entry.provider, route.keys, walk.tenant)
        return self._keys.opens_in(keys) if keys and keys[0].tenant else 0.0

    def corrected(self, failure: Failure, visit: Visit, key: Key | None) -> Failure:
        """The failure after what can be mended at once: another key, a parameter less. It quotes no key."""
        detail = redacted(failure.detail, "")
        for known in (*visit.keys, *visit.route.keys):
            detail = redacted(detail, known.secret)
        failure = replace(failure, detail=detail[:DETAIL_CHARACTERS])
        if failure.action is Action.NEXT_KEY and key:
            self._keys.park(key, failure.rests)
            return replace(failure, rests=0.0) if self._keys.any_left(visit.keys) else failure
        if failure.action is Action.DROP:
            done = visit.without(failure.parameter, failure.instead)
            if done:  # the next job need not ask
                refused = self._refused.setdefault((visit.route.name, visit.route.model), {})
                refused[failure.parameter] = failure.instead
            return replace(failure, instead=done, detail=f"{done}: {failure.detail}" if done else failure.detail)
        return failure

    def is_current(self, route: Route, key: Key, routes: Sequence[Route]) -> bool:
        """Whether jobs that begin now would use the key too."""
        now = (each for each in routes if each.account == route.account)
        return any(
            key.secret == own.secret for each in now for own in self._keys.given(each.entry.provider, each.keys, "")
        )


def _asks_for_usage(route: Route) -> bool:
    """Whether a stream tells of its tokens only when it is told to."""
    return route.entry.api == "openai" and (route.parameters is None or "stream_options" in route.parameters.takes)
