"""The ledger as one worker writes it: money and a place in the route's limits are reserved before a call, and settled after it.

The truth is in Redis (worker/lua/books.lua): one row an attempt, reserved -> dispatched -> settled | ambiguous | released. What
a worker has to write goes along with the committer's next round trip, in order, and counts once however often it is sent.

While Redis is away a hard cap cannot be held, so a call that one concerns is not made. Others are, and written down later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic_core import from_json, to_json

from producer import keyspace
from producer.scripts import Call, Script
from worker.caps import Owner

log = logging.getLogger("failover.worker")

_LUA = Path(__file__).parent / "lua"
LEDGER, SWEEP = (Script.load(_LUA, name) for name in ("ledger", "sweep"))

STEPS_AT_ONCE = 500
USED_UP_SECONDS = 60.0  # until a job asks again for money of a cap that is used up,
USED_UP = "has used its budget of this month"  # how what such a job waits for ends
BUSY_SECONDS = 1.0  # and of one whose rest is reserved by calls that run
SWEEP_AFTER_SECONDS = 12.0  # a row is looked at again this often, for as long as its call runs
SWEEP_AT_MOST = 500

State = Literal["settled", "ambiguous", "released"]
Terms = tuple[int, int, int]  # of a cap, as `Cap.terms`


@dataclass(frozen=True)
class Limit:
    """Of a route or a provider: what it takes in any minute, and at once; None for no limit."""

    name: str
    requests: int | None = None
    tokens: int | None = None
    concurrency: int | None = None

    @property
    def terms(self) -> tuple[str, int, int, int]:
        """As worker/lua/books.lua takes it: -1 for none."""
        numbers = (-1 if number is None else number for number in (self.requests, self.tokens, self.concurrency))
        return (self.name, *numbers)  # type: ignore[return-value]  # three of them


@dataclass(frozen=True)
class Refusal:
    """Why no call may be made. `of`: the scope whose cap is used up, or the limit. `seconds`: until it may be asked again."""

    why: Literal["budget", "busy", "limit", "away"]
    of: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        """As a job says what it waits for."""
        return {
            "budget": f"{self.of} {USED_UP}",
            "busy": f"{self.of} has reserved the rest of its budget for calls that run",
            "limit": f"{self.of} is at its limit",
            "away": "Redis is away, so no hard cap can be held",
        }[self.why]


AWAY = Refusal("away", seconds=5.0)  # Redis is


@dataclass
class Reservation:
    """One attempt's row. `micros` and `tokens`: what it may cost at most, by the estimate. `caps`: those that concern it, by
    scope. `held`: a hard cap is among them."""

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
    month: str = ""  # once it is granted

    @property
    def held(self) -> bool:
        return any(hard >= 0 or tokens >= 0 for hard, _, tokens in self.caps.values())

    def step(self) -> list[Any]:
        owner = self.owner
        row = {
            "id": self.id, "job": owner.job, "queue": owner.queue, "lease": owner.lease, "tenant": owner.tenant,
            "user": owner.user, "feature": owner.feature, "provider": self.provider, "route": self.route,
            "model": self.model, "price": self.price, "micros": self.micros, "tokens": self.tokens, "caps": self.caps,
            "state": "reserved" if self.held else "dispatched",
        }  # fmt: skip
        return ["reserve", row, [limit.terms for limit in self.limits]]


@dataclass
class _Step:
    """One thing to write. `answer` is waited for; a step without it is written and nobody waits."""

    words: list[Any]
    reservation: Reservation
    answer: asyncio.Future[Any] | None = None


class Ledger:
    """One worker's. `wake` is called when there is something to write; the committer then takes it along."""

    def __init__(self, worker_name: str, wake: Callable[[], None] = lambda: None) -> None:
        self.wake, self.steps = wake, tuple[float, ...]()  # steps: of the ladder, in percent
        self._worker = worker_name
        self._waiting: list[_Step] = []
        self._sent: list[_Step] = []
        self._call: Call | None = None  # sent, and not answered yet
        self._number = 0
        self._away = False

    async def reserve(self, reservation: Reservation) -> Refusal | None:
        """None: it is granted. It is then closed once; also by a caller that was cancelled, who cannot know."""
        if self._away and self.left:
            if reservation.held:
                return AWAY
            self._write(_Step(reservation.step(), reservation))
            return None
        reply: list[Any] = await self._asked(reservation.step(), reservation)
        match reply:
            case ["refused", scope]:
                return Refusal("budget", scope, USED_UP_SECONDS)
            case ["busy", scope]:
                return Refusal("busy", scope, BUSY_SECONDS)
            case ["limited", limit, ms]:
                return Refusal("limit", limit, ms / 1000)
            case ["away"]:
                return AWAY if reservation.held else None
        return None

    async def dispatch(self, reservation: Reservation) -> bool:
        """The call is about to go out. False: it must not, the reservation is gone or nobody can say."""
        if not reservation.held:
            return True  # its row has said so from the beginning
        reply: list[Any] = await self._asked(["dispatch", reservation.id], reservation)
        return reply == ["dispatched"]

    def close(
        self, reservation: Reservation, state: State, micros: int = 0, prompt: int = 0, completion: int = 0
    ) -> None:
        """The call has ended. `micros` and tokens: what it cost, or may have."""
        words = ["close", reservation.id, reservation.month, state, micros, prompt, completion]
        self._write(_Step(words, reservation))

    def take(self) -> Call | None:
        """What is to be sent now; the same again until it is answered."""
        if self._call is None and self._waiting:
            self._sent, self._waiting = self._waiting[:STEPS_AT_ONCE], self._waiting[STEPS_AT_ONCE:]
            self._number += 1
            keys = [*_BOOKS, keyspace.booked(self._worker), keyspace.BUDGETS]
            words = [_told(step) for step in self._sent]
            self._call = LEDGER.call(keys, [*_arguments(self.steps), self._number, to_json(words)])
        return self._call

    @property
    def waits(self) -> bool:
        """Whether what was sent has to be sent again."""
        return self._call is not None

    @property
    def left(self) -> bool:
        """Whether there is more to send."""
        return self.waits or bool(self._waiting)

    def heard(self, reply: Any) -> None:
        """Redis answered what was taken."""
        if not isinstance(reply, bytes):
            log.error("the ledger cannot be written", extra={"error": str(reply)})
            self.lost()
            self._call, self._sent = None, []
            return
        if self._away:
            log.info("the ledger is written again")
        self._away, self._call = False, None
        for step, answer in zip(self._sent, from_json(reply), strict=True):
            if answer[0] == "granted":
                step.reservation.month = answer[1]
            if step.answer is not None and not step.answer.done():
                step.answer.set_result(answer)
        self._sent = []

    def lost(self) -> None:
        """Redis did not answer: whoever waits is told so, and what was to be written stays to be written."""
        self._away = True
        for step in (*self._sent, *self._waiting):
            if step.answer is not None and not step.answer.done():
                step.answer.set_result(["away"])
                if step.reservation.held and step.words[0] == "reserve":
                    self.close(step.reservation, "released")  # it may have been granted

    def _write(self, step: _Step) -> None:
        self._waiting.append(step)
        self.wake()

    async def _asked(self, words: list[Any], reservation: Reservation) -> list[Any]:
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        step = _Step(words, reservation, answer)
        self._write(step)
        return await answer


def _told(step: _Step) -> list[Any]:
    if step.words[0] == "close":
        step.words[2] = step.reservation.month  # known by now
    return step.words


_BOOKS = (keyspace.RESERVATIONS, keyspace.RESERVATION_AGES)


def books(steps: Sequence[float]) -> tuple[Sequence[str], list[Any]]:
    """The KEYS and the first of the ARGV of lua/books.lua."""
    return _BOOKS, _arguments(steps)


def _arguments(steps: Sequence[float]) -> list[Any]:
    prefixes = (keyspace.SPENT, keyspace.LEDGER, keyspace.AMBIGUOUS, keyspace.LADDER, keyspace.LIMIT)
    return [*prefixes, to_json(sorted(steps))]


def sweep(steps: Sequence[float]) -> Call:
    """Reply: [rows released, rows that are ambiguous now]."""
    words = (keyspace.LEASES, int(SWEEP_AFTER_SECONDS * 1000), SWEEP_AT_MOST)
    return SWEEP.call(_BOOKS, [*_arguments(steps), *words])
