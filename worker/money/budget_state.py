"""What may be spent now, as one worker knows it: the file's caps, what operators set over them, how far each month is.

Read anew every second. A hard cap is held by the ledger itself (ledger.py), to the micro-dollar; what stands here is for
the ladder, the safeguard and the pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import RedisError

from producer import keyspace
from producer.scripts import Command, Script, ask, ask_async
from worker.humanize import money
from worker.money.billing_alerts import OWN_BOOKS, OWN_NAME, Guardrail, Spend, observe_call
from worker.money.caps import TOTAL, UNCAPPED, Budgets, Cap, Ceiling, Owner
from worker.money.ledger import LEFT, Terms
from worker.routes.names import canonical
from worker.routes.prices import dollars

log = logging.getLogger("failover.worker")

LOOK_SECONDS = 1.0
TOLD_SECONDS = 62 * 86400  # until the month of what billing was told is over
ROUSED = 2  # looks after a change of caps: a job that was refused just before it may not wait yet at the first

ROUSE = Script.load(Path(__file__).parent / "lua", "wake_capped")


@dataclass(frozen=True)
class Rung:
    """How far a scope is. `step`: of the ladder, in percent; `full`: less is left than some call may cost. Money in
    micro-dollars."""

    scope: str
    step: float
    full: bool
    basis: int
    hard: int
    tokens: int
    spent: int

    @property
    def terms(self) -> Terms:
        """The cap that it goes by."""
        return self.hard, self.basis, self.tokens

    def __str__(self) -> str:
        if self.full and self.hard < 0:
            return (
                f"{self.scope} has too little left of its {self.tokens:,} tokens of this month; {once_full(self.scope)}"
            )
        if self.full:
            cap = money(dollars(self.hard))
            return f"{self.scope} has too little left of its cap of {cap} for this month; {once_full(self.scope)}"
        return f"{self.scope} has used at least {self.step:g}% of its {money(dollars(self.basis))} for this month"


def once_full(scope: str) -> str:
    """What becomes of a scope's jobs when nothing is left."""
    return "others serve its jobs" if scope.startswith("provider:") else "its jobs wait"


def steps_of(budgets: Budgets, guardrail: Guardrail) -> tuple[float, ...]:
    """Where the ledger tells that a scope has come to, in percent."""
    return tuple(sorted({*budgets.ladder, guardrail.at_percent}))


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


def standing(client: redis.Redis, month: str | None = None) -> Standing:
    """`month` as in 2026-11; None is this one."""
    return _standing(ask(client, _commands(month or month_of(datetime.now(UTC)))))


def _standing(replies: Iterable[Any]) -> Standing:
    """What cannot be read of it is passed over: anybody may write into Redis."""
    caps, ladder, reduced = replies
    rungs = [rung for scope, raw in sorted(ladder.items()) if (rung := _rung(scope, raw)) is not None]
    return Standing(
        {scope.decode(errors="replace"): cap for scope, raw in caps.items() if (cap := _cap(raw)) is not None},
        {rung.scope: rung for rung in rungs},
        _reduced(reduced) if reduced else "",
    )


def _reduced(raw: bytes) -> str:
    try:
        told = json.loads(raw)
        why = f": {told['why']}" if told.get("why") else ""
        return f"cost is reduced by {told['who']}{why}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return "cost is reduced by somebody"


def _cap(raw: bytes) -> Cap | None:
    try:
        told = json.loads(raw)
        return Cap.model_validate({name: told.get(name) for name in Cap.model_fields})
    except (ValueError, AttributeError):
        return None


def _rung(scope: bytes, raw: bytes) -> Rung | None:
    try:
        told = json.loads(raw)
        numbers = {name: int(told[name]) for name in ("basis", "hard", "tokens", "spent")}
        return Rung(scope.decode(), float(told["step"]), bool(told["full"]), **numbers)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


class Allowance:
    """What may be spent at one moment, by the file and by what Redis said of it last."""

    def __init__(self, budgets: Budgets, standing: Standing = NOTHING) -> None:
        self.budgets, self._standing = budgets, standing
        self._caps: dict[str, Cap] = {}

    def cap(self, scope: str) -> Cap:
        """The operators', else the file's."""
        found = self._caps.get(scope)
        if found is None:
            if len(self._caps) > 10_000:
                self._caps.clear()
            found = self._caps[scope] = self._standing.caps.get(scope) or self.budgets.cap_of(scope)
        return found

    def _scopes(self, owner: Owner, provider: str | None) -> tuple[str, ...]:
        """Of a call. Provider None: it is paid by its tenant's own key, and no matter of our total."""
        return owner.scopes if provider is None else (TOTAL, f"provider:{canonical(provider)}", *owner.scopes)

    def terms(self, owner: Owner, provider: str | None) -> dict[str, Terms]:
        """The caps that concern a call, by scope."""
        return {scope: cap.terms for scope in self._scopes(owner, provider) if (cap := self.cap(scope)).sets}

    def ceiling(self, owner: Owner, provider: str) -> Ceiling:
        """The lowest hard caps that concern the job's calls to a provider."""
        caps = [(scope, cap) for scope in self._scopes(owner, provider) if (cap := self.cap(scope)).holds]
        if not caps:
            return UNCAPPED
        hard = min(((cap.terms[0], scope) for scope, cap in caps if cap.hard_usd is not None), default=(None, ""))
        tokens = min((cap.tokens for _, cap in caps if cap.tokens is not None), default=None)
        return Ceiling(hard[0], hard[1], tokens)

    def safeguard(self, owner: Owner) -> str:
        """Why the job is to cost less; "" if it need not."""
        if not (self._standing.reduced or self._standing.rungs):
            return ""
        if owner.feature in self.budgets.safeguard.critical_features:
            return ""
        return self._standing.reduced or self._last(TOTAL, *owner.scopes)

    def shunned(self, providers: Iterable[str]) -> frozenset[str]:
        """Those whose month is at its last step."""
        if not self._standing.rungs:
            return frozenset()
        return frozenset(each for each in providers if self._last(f"provider:{canonical(each)}"))

    def full(self, owner: Owner, provider: str) -> str:
        """Which hard cap has too little left for some calls, in words; "" for none."""
        rungs = (self._standing.rungs.get(scope) for scope in self._scopes(owner, provider))
        return next((str(rung) for rung in rungs if rung is not None and rung.full), "")

    def _last(self, *scopes: str) -> str:
        """Which of them is at the ladder's last step, in words."""
        last = self.budgets.ladder[-1]
        rungs = (self._standing.rungs.get(scope) for scope in scopes)
        return next((str(rung) for rung in rungs if rung is not None and rung.step >= last), "")


class Allowances(Allowance):
    """One worker's, which it keeps up to date."""

    def __init__(self, client: redis.asyncio.Redis, guardrail: Guardrail) -> None:
        super().__init__(Budgets())
        self._client, self._guardrail = client, guardrail
        self._rouses = 0  # looks at which jobs that wait for money are to ask again
        self._paused = set[str]()  # what billing was told of

    def adopt(self, budgets: Budgets, guardrail: Guardrail) -> None:
        self._rouses = ROUSED if self.budgets != budgets else self._rouses
        self.budgets, self._guardrail = budgets, guardrail
        self._caps.clear()

    @property
    def steps(self) -> tuple[float, ...]:
        return steps_of(self.budgets, self._guardrail)

    async def run(self) -> None:
        """Look for ever. While Redis is away, what was last known holds."""
        while True:
            with contextlib.suppress(RedisError):
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        month = month_of(datetime.now(UTC))
        found = _standing(await ask_async(self._client, _commands(month)))
        if found.caps != self._standing.caps:
            self._caps.clear()
            self._rouses = ROUSED
        if found.reduced != self._standing.reduced:
            log.warning(found.reduced or "cost is not reduced any more")
        self._standing = found
        await self._forget(month, [scope for scope, rung in found.rungs.items() if rung.terms != self.cap(scope).terms])
        await self._pause(month)
        if self._rouses:
            self._rouses -= 1
            await ask_async(self._client, [ROUSE.call([keyspace.QUEUES], [LEFT])])

    async def _forget(self, month: str, stale: Sequence[str]) -> None:
        """Rungs of caps that are others now, or none: the next call tells anew."""
        if not stale:
            return
        kept = {scope: rung for scope, rung in self._standing.rungs.items() if scope not in stale}
        self._standing = replace(self._standing, rungs=kept)
        terms = [f"terms:{scope}" for scope in stale]
        await ask_async(
            self._client, [("HDEL", keyspace.LADDER + month, *stale), ("HDEL", keyspace.SPENT + month, *terms)]
        )

    async def _pause(self, month: str) -> None:
        """Billing hears of what our own books say of a provider's month, or the total's: once a step, whoever resumes."""
        for rung in self._standing.rungs.values():
            kind, _, provider = rung.scope.partition(":")
            if kind not in (TOTAL, "provider") or rung.step < self._guardrail.at_percent or rung.basis <= 0:
                continue
            told = f"{OWN_BOOKS} {rung.scope} {month} {rung.step:g} {rung.basis}"
            if told in self._paused:
                continue
            marker = keyspace.spend_message("told " + told)
            (known,) = await ask_async(self._client, [("EXISTS", marker)])
            if not known:
                percent = max(rung.step, math.floor(1000 * rung.spent / rung.basis) / 10)
                spend = Spend(
                    provider or TOTAL, percent, "the ledger", interval=month, message_id=told,
                    budget_id=OWN_BOOKS, budget_name=OWN_NAME,
                )  # fmt: skip
                guardrail = replace(self._guardrail, scope="all" if kind == TOTAL else "provider")
                await ask_async(
                    self._client, [observe_call(spend, guardrail), ("SET", marker, "1", "EX", TOLD_SECONDS)]
                )
            self._paused.add(told)
