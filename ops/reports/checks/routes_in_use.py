"""What the doctor finds about routes in what workers saw: a list of models is served also without credit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from redis.exceptions import RedisError

from ops.local import session
from ops.reports.checks.finding import Finding
from producer.environment import Environment
from producer.errors import FailoverError
from worker.breakers import health
from worker.control import worker_registry
from worker.control.pause import paused, utc
from worker.notify.condition import Condition
from worker.notify.kinds import Kind
from worker.notify.provider_conditions import of_routes
from worker.routes.route import load_routes

CLOSED = (Kind.CREDENTIALS, Kind.ROUTE_OPEN)  # those of one provider


def check_routes_in_use(environment: Environment) -> Iterator[Finding]:
    """The routes that no job uses now, because a provider refused or failed the workers' calls; the workers' own warnings."""
    with contextlib.suppress(FailoverError, RedisError), session.existing(environment) as client:  # reported above
        if client is None:
            return
        views = worker_registry.views(client)
        usable = {each["route"]: each for each in _own(environment)} | worker_registry.usable(views)
        closed = worker_registry.withheld(usable, paused(client, []))
        for condition in of_routes(usable, health.of_routes(client, list(usable)), closed, lambda: 0):
            if condition.kind in CLOSED:
                yield _closed(condition)
        for warning in dict.fromkeys(warning for view in views for warning in view["told"]):
            yield Finding("warn", "workers", warning)


def _own(environment: Environment) -> list[dict[str, Any]]:
    with contextlib.suppress(FailoverError):  # reported above
        return worker_registry.facts(load_routes(environment))
    return []


def _closed(condition: Condition) -> Finding:
    refused = condition.kind is Kind.CREDENTIALS
    since = f" since {utc(condition.since_ms / 1000)}" if refused and condition.since_ms else ""
    again = f"; it is tried again after {utc(condition.until_ms / 1000)}" if condition.until_ms else ""
    title = condition.title or f"calls of {condition.subject} fail"
    text = f"{title}{since}, as workers saw{again} — {'; '.join(condition.lines)}"
    return Finding("fail" if refused else "warn", f"provider {condition.subject}", text, 2 if refused else 0)
