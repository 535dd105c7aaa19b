"""One execution's way over its candidates, and its stay on one of them: what is left to spend, and what was told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from producer.job import Attempt, ChatBody, Rejection
from worker.breaker import Admission
from worker.routes import Route
from worker.taxonomy import DROPPABLE, RENAMES, Breaker, Failure

RETRIES_BEFORE_ANOTHER = 1  # of a failing route, while another one is open


@dataclass
class Walk:
    """One execution's way over its candidates. `deadline` in the loop's time; `ordinal` counts executions from 1.

    `attempts` are all calls made; `attempts_left` is the job's hard cap, which probes do not use up. `burned`: an
    attempt failed that was no probe, on a route that did not name the time to come back. `first_token_seconds`: the
    policy's limit; set, answers are streamed. `failover_on_refusal`: a refused job may go to other routes. `known`: entries of
    the trail that are of earlier executions.
    """

    job_id: str
    ordinal: int
    body: ChatBody
    idempotency_key: str
    deadline: float
    attempts_left: int
    trail: list[Attempt | Rejection] = field(default_factory=list)
    attempts: int = 0
    burned: bool = False
    first_token_seconds: float | None = None
    failover_on_refusal: bool = False
    known: int = 0

    def seconds_left(self) -> float:
        return self.deadline - asyncio.get_running_loop().time()

    def tell(self, route: Route, failure: Failure | None, started: float, *, probe: bool, note: str = "") -> None:
        """An attempt that ended, into the trail."""
        ms = round((time.monotonic() - started) * 1000)
        self.trail.append(
            Attempt(
                execution=self.ordinal,
                route=route.name,
                tier=route.tier,
                outcome=failure.code if failure else "ok",
                status=failure.status if failure else None,
                at_ms=round(time.time() * 1000) - ms,
                ms=ms,
                ambiguous=failure.ambiguous if failure else False,
                probe=probe,
                detail=(failure.detail if failure else note) or None,
            )
        )

    def reject(self, route: Route, why: str) -> None:
        self.trail.append(Rejection(execution=self.ordinal, route=route.name, tier=route.tier, rejected=why))


@dataclass
class Visit:
    """One execution's stay on one route. `body`: what the route is sent, without what it does not know."""

    route: Route
    body: Mapping[str, Any]
    another_waits: bool  # a later candidate could answer now
    retries: int = 0
    admission: Admission | None = None  # of an attempt whose request was corrected, for the next one
    changed: set[str] = field(default_factory=set)

    def retry(self, failure: Failure) -> bool:
        """Whether the route is asked again after such a failure."""
        most = min(failure.retries, self.route.entry.retries)
        if self.another_waits and failure.breaker is Breaker.COUNT:
            most = min(most, RETRIES_BEFORE_ANOTHER)
        self.retries += 1
        return self.retries <= most

    def without(self, parameter: str, instead: str) -> str:
        """Send `parameter` by its other name, or not at all, once; what was done, or "" if nothing can be."""
        if parameter not in self.body or parameter in self.changed:
            return ""
        self.changed.add(parameter)
        rest = {name: value for name, value in self.body.items() if name != parameter}
        if instead and instead == RENAMES.get(parameter) and instead not in self.body:
            self.changed.add(instead)
            self.body = {**rest, instead: self.body[parameter]}
            return f"sent {parameter} as {instead}"
        if parameter not in DROPPABLE:
            return ""
        self.body = rest
        return f"dropped {parameter}"
