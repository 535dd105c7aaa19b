"""The attempts of one execution on one route: what is sent, with which key, and the call that is under way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.breakers.local import Permit
from worker.errors.blame import OF_MESSAGES
from worker.errors.catalog import DROPPABLE, RENAMES, Breaker, Failure
from worker.money.ledger import Refusal, Reservation
from worker.routes.api_keys import Key
from worker.routes.route import Route

_WITH = {"logprobs": ("top_logprobs",)}  # what makes no sense without it
RETRIES_BEFORE_ANOTHER = 1  # of a failing route, while another one is open


@dataclass(frozen=True)
class Correction:
    """A request without a parameter that the route refused, or with it under its other name. `dropped`: as the trail names it;
    `done`: what was done, in words; `changed`: the parameters that are not corrected again."""

    body: Mapping[str, Any]
    dropped: str
    done: str
    changed: frozenset[str]


@dataclass
class RouteAttempt:
    """`body`: what the route is sent, without what it does not know (`dropped`). `others`: later candidates that
    could answer now. `refusal`: why the ledger let no call go out. `local`: the trouble of this
    machine that kept the call from being sent. `permit`: the breaker's leave, kept for a corrected request.

    Of the call that is under way: `reservation` is its row in the ledger, `breaker` how the breaker stood when it let the
    call through, `unsaid` what the dialect could not say as the body has it, `started` its begin on the monotonic clock.
    """

    route: Route
    body: Mapping[str, Any]
    others: Sequence[Route] = ()
    keys: Sequence[Key] = ()
    dropped: tuple[str, ...] = ()
    retries: int = 0
    refusal: Refusal | None = None
    local: str = ""
    permit: Permit | None = None
    corrected: frozenset[str] = frozenset()

    reservation: Reservation | None = None
    key: Key | None = None
    seconds: float = 0.0
    probe: bool = False
    breaker: str = "closed"
    unsaid: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def begin(self, key: Key | None, seconds: float, *, probe: bool, breaker: str) -> None:
        """A call goes out now, which may take so many `seconds`."""
        self.key, self.seconds, self.probe, self.breaker = key, seconds, probe, breaker
        self.unsaid, self.started = [], time.monotonic()

    def may_retry(self, failure: Failure) -> bool:
        """Whether the route's own retries allow another call after such a failure."""
        most = min(failure.retries, self.route.entry.retries)
        if self.others and failure.breaker is Breaker.COUNT:
            most = min(most, RETRIES_BEFORE_ANOTHER)
        return self.retries < most

    def correction(self, parameter: str, instead: str) -> Correction | None:
        """The request with `parameter` by its other name, or without it; None if nothing can be done, or was done before."""
        if parameter in self.corrected:
            return None
        if parameter.startswith(OF_MESSAGES):
            return self._without_field(parameter)
        if parameter not in self.body:
            return None
        gone = {parameter, *_WITH.get(parameter, ())}
        rest = {name: value for name, value in self.body.items() if name not in gone}
        changed = self.corrected | {parameter}
        if instead and instead == RENAMES.get(parameter) and instead not in self.body:
            renamed = {**rest, instead: self.body[parameter]}
            words = f"{parameter} as {instead}"
            return Correction(renamed, words, f"sent {words}", changed | {instead})
        if parameter not in DROPPABLE and RENAMES.get(parameter) not in rest:  # a limit stays, by one of its two names
            return None
        return Correction(rest, parameter, f"dropped {parameter}", changed)

    def _without_field(self, parameter: str) -> Correction | None:
        """The request without a field of its messages that only some providers know."""
        name = parameter.removeprefix(OF_MESSAGES)
        messages = self.body.get("messages")
        if not isinstance(messages, list) or not any(isinstance(each, dict) and name in each for each in messages):
            return None
        bare = [
            {key: value for key, value in each.items() if key != name} if isinstance(each, dict) else each
            for each in messages
        ]
        body = {**self.body, "messages": bare}
        return Correction(body, parameter, f"dropped {parameter}", self.corrected | {parameter})

    def correct(self, correction: Correction) -> None:
        """Send it so from now on."""
        self.body, self.corrected = correction.body, correction.changed
        self.dropped = (*self.dropped, correction.dropped)
