"""The ledger as one worker writes it: it reserves each call's maximum cost and slot on the route, and settles them.

The ledger is in Redis (lua/ledger_rows.lua): one row per attempt, reserved -> dispatched -> settled | ambiguous | released.
What a worker writes goes with the batcher's next round trip, in order, and counts once however often it is resent. While
Redis is away, hard caps and limits cannot be enforced: calls that have one wait, the rows of others are written later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic_core import from_json, to_json

from producer import keyspace
from producer.scripts import Call, Script
from producer.trail import RejectedFor
from producer.waiting import WaitReason
from worker.money.caps import Owner
from worker.queue.batcher import Batcher, Request
from worker.queue.waiting import Waiting

log = logging.getLogger("failover.worker")

_LUA = Path(__file__).parent / "lua"
LEDGER, SWEEP, SUMS, CAP = (Script.load(_LUA, name) for name in ("ledger", "sweep", "sums", "cap"))
FOLD_ROWS, FOLD_AMBIGUOUS, DROP_NAMES = (
    Script.load(_LUA, name) for name in ("fold_rows", "fold_ambiguous", "drop_names")
)

STEPS_AT_ONCE = 500
USED_UP_SECONDS = 60.0  # a job asks again after it when a cap is used up
BUSY_SECONDS = 1.0  # ... and after it when the remainder is only reserved by calls that run
SWEEP_AFTER_SECONDS = 12.0  # a row is checked again after it, as long as its call runs
SWEEP_AT_MOST = 500
COUNTED_AT_ONCE = 400  # rows that one call counts again, which takes 10 to 25 ms of Redis
COUNT_PAUSE_SECONDS = 0.03  # between two such calls, for what else Redis has to do

State = Literal["settled", "ambiguous", "released"]
Terms = tuple[int, int, int]  # `Cap.terms`


@dataclass(frozen=True)
class Limit:
    """The limits of a route or a provider: requests and tokens in any minute, calls at once. None for no limit."""

    name: str
    requests: int | None = None
    tokens: int | None = None
    concurrency: int | None = None

    @property
    def terms(self) -> tuple[str, int, int, int]:
        """(name, requests, tokens, concurrency) as lua/ledger_rows.lua takes it: -1 for none."""
        numbers = (-1 if number is None else number for number in (self.requests, self.tokens, self.concurrency))
        return (self.name, *numbers)  # type: ignore[return-value]  # three of them


class RefusalReason(StrEnum):
    """Why the ledger refuses a call."""

    BUDGET = "budget"  # a cap of this month has too little left
    BUSY = "busy"  # what is left of a cap is reserved by calls that run
    LIMIT = "limit"  # a limit of requests per minute, or of calls at once
    TOKENS = "tokens"  # a limit of tokens per minute
    AWAY = "away"  # Redis is away, so that the call's caps and limits cannot be enforced
    BROKEN = "broken"  # the ledger holds data that cannot be read


_WAITS = {
    RefusalReason.BUDGET: WaitReason.BUDGET,
    RefusalReason.BUSY: WaitReason.BUDGET_RESERVED,
    RefusalReason.LIMIT: WaitReason.RATE_LIMIT,
    RefusalReason.TOKENS: WaitReason.TOKENS,
    RefusalReason.AWAY: WaitReason.REDIS,
    RefusalReason.BROKEN: WaitReason.LEDGER,
}
_REJECTED_FOR = {
    RefusalReason.BUDGET: RejectedFor.OVER_BUDGET,
    RefusalReason.BUSY: RejectedFor.OVER_BUDGET,
    RefusalReason.LIMIT: RejectedFor.LIMITED,
    RefusalReason.TOKENS: RejectedFor.LIMITED,
    RefusalReason.AWAY: RejectedFor.NO_LEDGER,
    RefusalReason.BROKEN: RejectedFor.NO_LEDGER,
}


@dataclass(frozen=True)
class Refusal:
    """A refused call. `of`: the cap's scope, or the limit. `seconds`: when to ask again. `left`, `asked`: micro-dollars."""

    why: RefusalReason
    of: str = ""
    seconds: float = 0.0
    left: int = field(default=0, compare=False)
    asked: int = field(default=0, compare=False)

    @property
    def for_a_place(self) -> bool:
        """Whether a rate limit refused the call, so that waiting for a slot on the route helps."""
        return self.why in (RefusalReason.LIMIT, RefusalReason.TOKENS)

    @property
    def cools_route(self) -> bool:
        """Whether the route has no slot for any job now, and not only for this call."""
        return self.why is RefusalReason.LIMIT

    @property
    def holds_back(self) -> bool:
        """Whether only this call is refused, so that other jobs can still use the route."""
        return self.why is not RefusalReason.LIMIT

    @property
    def rejected_for(self) -> RejectedFor:
        return _REJECTED_FOR[self.why]

    @property
    def waiting(self) -> Waiting:
        """The wait reason of a job that was refused for this."""
        return Waiting(_WAITS[self.why], (self.of,) if self.of else (), left=self.left, asked=self.asked)

    def __str__(self) -> str:
        return str(self.waiting)


AWAY = Refusal(RefusalReason.AWAY, seconds=5.0)


@dataclass
class Reservation:
    """The ledger row of one attempt. `micros` and `tokens`: its estimated maximum, in micro-dollars and tokens. `caps`: the
    caps that apply to it, by scope. `own`: the tenant's own key pays for it."""

    id: str
    owner: Owner
    provider: str
    route: str
    model: str
    price: str
    micros: int
    tokens: int
    caps: Mapping[str, Terms] = field(default_factory=dict)
    limits: Sequence[Limit] = ()
    own: bool = False
    month: str = ""  # set when it is granted

    @property
    def capped(self) -> bool:
        """Whether a hard cap applies."""
        return any(hard >= 0 or tokens >= 0 for hard, _, tokens in self.caps.values())

    @property
    def strict(self) -> bool:
        """Whether the call may be made only after the ledger has granted it."""
        return self.capped or bool(self.limits)

    @property
    def row(self) -> dict[str, Any]:
        """The row as lua/ledger_rows.lua takes it."""
        owner = self.owner
        return {
            "id": self.id, "job": owner.job, "queue": owner.queue, "lease": owner.lease, "tenant": owner.tenant,
            "user": owner.user, "feature": owner.feature, "provider": self.provider, "route": self.route,
            "model": self.model, "price": self.price, "micros": self.micros, "tokens": self.tokens, "caps": self.caps,
            "state": "reserved" if self.capped else "dispatched", "own": "1" if self.own else "",
        }  # fmt: skip


@dataclass
class _Step:
    """One write to the ledger (`words` as in lua/ledger.lua). Without `answer`, nobody waits for the reply."""

    words: list[Any]
    reservation: Reservation
    answer: asyncio.Future[Any] | None = None


class Ledger:
    """The ledger as one worker writes it; first in the batcher's round trips. `steps` returns the alert thresholds in %."""

    def __init__(self, worker_name: str, batcher: Batcher, steps: Callable[[], Sequence[float]] = lambda: ()) -> None:
        self._worker, self._batcher, self._steps = worker_name, batcher, steps
        self._waiting: list[_Step] = []
        self._sent: list[_Step] = []  # the steps of the call that is not answered yet
        self._in_flight = False
        self._number = 0
        self._one_by_one = 0  # this many steps are sent one by one, because Redis refused their batch
        self._away = False

    async def reserve(self, reservation: Reservation) -> Refusal | None:
        """None: it is granted, and must be closed exactly once. A caller that is cancelled must close it too, because it
        cannot know."""
        words = ["reserve", reservation.row, [limit.terms for limit in reservation.limits]]
        if self._away and self._in_flight:
            if reservation.strict:
                return AWAY
            self._write(_Step(words, reservation))
            return None
        reply: list[Any] = await self._reply(words, reservation)
        match reply:
            case ["refused", scope, left]:
                return Refusal(RefusalReason.BUDGET, scope, USED_UP_SECONDS, left, reservation.micros)
            case ["busy", scope, left]:
                return Refusal(RefusalReason.BUSY, scope, BUSY_SECONDS, left, reservation.micros)
            case ["limited", limit, ms, for_tokens]:
                return Refusal(RefusalReason.TOKENS if for_tokens else RefusalReason.LIMIT, limit, ms / 1000)
            case ["away"]:
                return AWAY if reservation.strict else None
            case ["broken", _]:
                return Refusal(RefusalReason.BROKEN, seconds=USED_UP_SECONDS) if reservation.strict else None
        return None

    async def dispatch(self, reservation: Reservation) -> bool:
        """Mark the row as dispatched, just before the call. False: do not call, the row is gone or Redis is away."""
        if not reservation.capped:
            return True  # such a row is written as dispatched when it is reserved
        reply: list[Any] = await self._reply(["dispatch", reservation.id], reservation)
        return reply == ["dispatched"]

    def close(
        self, reservation: Reservation, state: State, micros: int = 0, prompt: int = 0, completion: int = 0
    ) -> None:
        """Close the row of an ended call. `micros` (micro-dollars), tokens: what it cost, or the maximum if ambiguous."""
        words = ["close", reservation.id, reservation.month, state, micros, prompt, completion]
        self._write(_Step(words, reservation))

    def _book(self, closed: _Step) -> None:
        """Write the whole row of a call whose reservation is not in Redis: Redis was away during the call, or lost it."""
        _, row_id, _, *ended = closed.words
        log.warning("the row of a call was missing and is written now", extra={"row": row_id})
        self._write(_Step(["book", closed.reservation.row, *ended], closed.reservation))

    def _write(self, step: _Step) -> None:
        self._waiting.append(step)
        if self._in_flight:
            self._batcher.joined()
        self._submit()

    def _submit(self) -> None:
        """Submit the next script call, one at a time; it carries all steps that are waiting when it is sent."""
        if self._waiting and not self._in_flight:
            self._in_flight = True
            self._batcher.submit(Request(self._next_call, self._answered, self._lost, until_answered=True), first=True)

    def _next_call(self) -> Call:
        at_once = STEPS_AT_ONCE if not self._one_by_one else 1
        self._sent, self._waiting = self._waiting[:at_once], self._waiting[at_once:]
        self._one_by_one = max(0, self._one_by_one - 1)
        self._number += 1
        keys = [*_ROWS, keyspace.booked(self._worker), keyspace.BUDGETS]
        words = [_words_of(step) for step in self._sent]
        return LEDGER.call(keys, [*_arguments(self._steps()), self._number, to_json(words)])

    def _answered(self, reply: Any) -> None:
        sent, self._sent, self._in_flight = self._sent, [], False
        if isinstance(reply, bytes):
            if self._away:
                log.info("Redis is back, the ledger is written again")
            self._away = False
            for step, answer in zip(sent, from_json(reply), strict=True):
                self._answer(step, answer)
        else:
            self._refused(sent, reply)
        self._submit()

    def _answer(self, step: _Step, answer: list[Any]) -> None:
        if answer[0] == "granted":
            step.reservation.month = answer[1]
        if answer[0] == "broken":
            log.error("a row cannot be written", extra={"row": step.reservation.id, "error": answer[1]})
        if answer == ["gone"] and step.words[0] == "close" and step.words[3] != "released":
            self._book(step)
        if step.answer is not None and not step.answer.done():
            step.answer.set_result(answer)

    def _refused(self, sent: list[_Step], error: Any) -> None:
        """Redis will never accept this batch: send its steps one by one, so that one bad row does not block the others."""
        log.error("the ledger cannot be written", extra={"error": str(error), "rows": len(sent)})
        self._answer_away(sent)
        if len(sent) > 1:
            self._one_by_one, self._waiting[:0] = len(sent), sent

    def _lost(self) -> None:
        """Redis did not answer: callers that wait get "away"; the steps stay, to be sent again."""
        self._answer_away([*self._sent, *self._waiting])

    def _answer_away(self, steps: Sequence[_Step]) -> None:
        self._away = True
        for step in steps:
            if step.answer is not None and not step.answer.done():
                step.answer.set_result(["away"])
                if step.reservation.strict and step.words[0] == "reserve":
                    self.close(step.reservation, "released")  # Redis may have granted it

    async def _reply(self, words: list[Any], reservation: Reservation) -> list[Any]:
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._write(_Step(words, reservation, answer))
        return await answer


def _words_of(step: _Step) -> list[Any]:
    if step.words[0] == "close":
        step.words[2] = step.reservation.month  # it was not known when the step was made
    return step.words


_ROWS = (keyspace.RESERVATIONS, keyspace.RESERVATION_AGES)


def ledger_keys(steps: Sequence[float]) -> tuple[Sequence[str], list[Any]]:
    """KEYS 1-2 and ARGV 1-6 of lua/ledger_sums.lua."""
    return _ROWS, _arguments(steps)


def _arguments(steps: Sequence[float]) -> list[Any]:
    prefixes = (keyspace.SPENT, keyspace.LEDGER, keyspace.AMBIGUOUS, keyspace.ALERT_THRESHOLDS, keyspace.LIMIT)
    return [*prefixes, to_json(sorted(steps))]


def sweep(steps: Sequence[float]) -> Call:
    """Close the rows of executions that are gone. Reply: [rows released, rows that are ambiguous now, 1 while the month's
    sums are counted again]."""
    words = (keyspace.LEASES, int(SWEEP_AFTER_SECONDS * 1000), SWEEP_AT_MOST)
    return SWEEP.call(_ROWS, [*_arguments(steps), *words])


def month_sums(month: str) -> Call:
    """Make sure that the sums of a month are there; "" is the present one. Reply: 1, or 0 while lost ones are counted again:
    ask once more, after COUNT_PAUSE_SECONDS."""
    return SUMS.call(_ROWS, [*_arguments(()), month, COUNTED_AT_ONCE])


def fold_rows(month: str, last: str, at_most: int) -> Call:
    """Take the closed rows up to the stream id `last` out of Redis, the oldest first. Reply: how many; -1: not now."""
    return FOLD_ROWS.call(_ROWS, [*_arguments(()), month, last, at_most])


def fold_ambiguous(month: str, row_ids: Sequence[str]) -> Call:
    """Take these ambiguous rows out of Redis. Reply: how many; -1: not now."""
    return FOLD_AMBIGUOUS.call(_ROWS, [*_arguments(()), month, *row_ids])


def drop_names(month: str, scopes: Sequence[str]) -> Call:
    """Count these users and features, where they have no cap, with the rest. Reply: how many sums; -1: not now."""
    return DROP_NAMES.call(_ROWS, [*_arguments(()), month, *scopes])
