"""What may be spent now, as one worker knows it: the file's caps, what operators set over them, how far each month is.

Read anew every second, and only where there is something to hold: without a cap nobody asks. A hard cap is held by the ledger
itself (worker/budget.py), to the micro-dollar; what stands here is for the ladder, the safeguard and the pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from pydantic import ValidationError
from redis.exceptions import RedisError

from producer import keyspace
from producer.scripts import Command, Script, ask, ask_async
from worker.budget import USED_UP, Terms
from worker.caps import TOTAL, Budgets, Cap, Owner
from worker.pause import canonical
from worker.prices import dollars
from worker.spend import OWN_BOOKS, OWN_NAME, Guardrail, Spend, observe_call
from worker.words import money

log = logging.getLogger("failover.worker")

LOOK_SECONDS = 1.0
ROUSED = 2  # looks after a change of caps: a job that was refused just before it may not wait yet at the first

ROUSE = Script.load(Path(__file__).parent / "lua", "rouse")


@dataclass(frozen=True)
class Rung:
    """How far a scope is. `step`: of the ladder, in percent; `full`: jobs wait for its hard cap. Money in micro-dollars."""

    scope: str
    step: float
    full: bool
    basis: int
    hard: int
    tokens: int
    spent: int
    at_ms: int

    def __str__(self) -> str:
        of = dollars(self.hard if self.full and self.hard >= 0 else self.basis)
        cap = f"{self.tokens:,} tokens" if self.full and self.hard < 0 else money(of)
        if self.full:
            return f"{self.scope} has used its cap of {cap} for this month"
        return f"{self.scope} has used {self.step:g}% of its {cap} for this month"


@dataclass(frozen=True)
class Standing:
    """What Redis says: caps that operators set, by scope; the scopes that are on their ladder; why all cost is reduced."""

    caps: Mapping[str, Cap]
    rungs: Mapping[str, Rung]
    reduced: str = ""


NOTHING = Standing({}, {})


def month_of(now: datetime) -> str:
    """As the keys name it."""
    return now.astimezone(UTC).strftime("%Y-%m")


def _commands(month: str) -> list[Command]:
    return [("HGETALL", keyspace.BUDGETS), ("HGETALL", keyspace.LADDER + month), ("GET", keyspace.REDUCE)]


def standing(client: redis.Redis) -> Standing:
    return _standing(ask(client, _commands(month_of(datetime.now(UTC)))))


def _standing(replies: Iterable[Any]) -> Standing:
    caps, ladder, reduced = replies
    rungs = (_rung(scope, raw) for scope, raw in ladder.items())
    told = json.loads(reduced) if reduced else {}
    why = f": {told['why']}" if told.get("why") else ""
    return Standing(
        {scope.decode(): cap for scope, raw in caps.items() if (cap := _cap(raw)) is not None},
        {rung.scope: rung for rung in sorted(rungs, key=lambda rung: rung.scope)},
        f"cost is reduced by {told['who']}{why}" if told else "",
    )


def _cap(raw: bytes) -> Cap | None:
    try:
        told = json.loads(raw)
        return Cap.model_validate({name: told.get(name) for name in Cap.model_fields})
    except (ValueError, ValidationError, AttributeError):
        return None


def _rung(scope: bytes, raw: bytes) -> Rung:
    told = json.loads(raw)
    numbers = {name: int(told[name]) for name in ("basis", "hard", "tokens", "spent")}
    return Rung(scope.decode(), told["step"], told["full"], at_ms=int(told["at"]), **numbers)


class Allowances:
    """One worker's."""

    def __init__(self, client: redis.asyncio.Redis, guardrail: Guardrail, now: Standing = NOTHING) -> None:
        self._client, self._guardrail, self._standing = client, guardrail, now
        self._budgets = Budgets()
        self._caps: dict[str, Cap] = {}
        self._rouses = 0  # looks at which jobs that wait for money are to ask again
        self._paused: set[tuple[str, str, float]] = set()  # months, scopes and steps that billing was told of

    def adopt(self, budgets: Budgets, guardrail: Guardrail) -> None:
        self._rouses = ROUSED if self._budgets != budgets else self._rouses
        self._budgets, self._guardrail = budgets, guardrail
        self._caps.clear()

    @property
    def budgets(self) -> Budgets:
        return self._budgets

    @property
    def steps(self) -> tuple[float, ...]:
        """Where the ledger tells that a scope has come to."""
        return tuple(sorted({*self._budgets.ladder, self._guardrail.at_percent}))

    def cap(self, scope: str) -> Cap:
        """The operators', else the file's."""
        found = self._caps.get(scope)
        if found is None:
            if len(self._caps) > 10_000:
                self._caps.clear()
            found = self._caps[scope] = self._standing.caps.get(scope) or self._budgets.cap_of(scope)
        return found

    def terms(self, owner: Owner, provider: str) -> dict[str, Terms]:
        """The caps that concern a call, by scope."""
        scopes = (*owner.scopes, f"provider:{canonical(provider)}")
        return {scope: cap.terms for scope in scopes if (cap := self.cap(scope)).sets}

    def held(self, owner: Owner, provider: str, *, in_dollars: bool = False) -> bool:
        """Whether a hard cap concerns the job's calls to a provider."""
        caps = (self.cap(scope) for scope in (*owner.scopes, f"provider:{canonical(provider)}"))
        return any(cap.hard_usd is not None if in_dollars else cap.holds for cap in caps)

    def safeguard(self, owner: Owner, providers: Iterable[str]) -> str:
        """Why the job is to cost less; "" if it need not."""
        if not (self._standing.reduced or self._standing.rungs):
            return ""
        if owner.feature in self._budgets.safeguard.critical_features:
            return ""
        if self._standing.reduced:
            return self._standing.reduced
        last = self._budgets.ladder[-1]
        scopes = [*owner.scopes, *(f"provider:{canonical(provider)}" for provider in providers)]
        rungs = (self._standing.rungs.get(scope) for scope in scopes)
        return next((str(rung) for rung in rungs if rung is not None and rung.step >= last), "")

    async def run(self) -> None:
        """Look for ever. While Redis is away, what was last known holds."""
        while True:
            with contextlib.suppress(RedisError):
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        month = month_of(datetime.now(UTC))
        try:
            found = _standing(await ask_async(self._client, _commands(month)))
        except (ValueError, TypeError, KeyError):
            log.exception("caps or ladder in Redis cannot be read")
            return
        if found.caps != self._standing.caps:
            self._caps.clear()
            self._rouses = ROUSED
        if found.reduced != self._standing.reduced:
            log.warning(found.reduced or "cost is not reduced any more")
        self._standing = found
        await self._pause(month)
        if self._rouses:
            self._rouses -= 1
            await ask_async(self._client, [ROUSE.call([keyspace.QUEUES], [USED_UP])])

    async def _pause(self, month: str) -> None:
        """Billing hears of what our own books say of a provider's month, or the total's: once a step."""
        for rung in self._standing.rungs.values():
            kind, _, provider = rung.scope.partition(":")
            at = (month, rung.scope, rung.step)
            if kind not in (TOTAL, "provider") or rung.step < self._guardrail.at_percent or at in self._paused:
                continue
            percent = max(rung.step, math.floor(1000 * rung.spent / rung.basis) / 10) if rung.basis > 0 else 100.0
            spend = Spend(
                provider or TOTAL,
                percent,
                "the ledger",
                interval=month,
                message_id=f"{OWN_BOOKS} {rung.scope} {month} {rung.step:g} {rung.basis}",
                budget_id=OWN_BOOKS,
                budget_name=OWN_NAME,
            )
            guardrail = replace(self._guardrail, scope="all") if kind == TOTAL else self._guardrail
            await ask_async(self._client, [observe_call(spend, guardrail)])
            self._paused.add(at)
