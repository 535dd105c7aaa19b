"""What may be spent now, as one worker knows it: the file's caps, what operators set over them, how far each month is.

Read anew every second. A hard cap is held by the ledger itself (ledger.py), to the micro-dollar; what stands here is for
the alert thresholds, cost saving and the pause.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from producer import keyspace
from producer.scripts import Command, Script, ask, ask_async
from worker.humanize import money
from worker.money.billing_alerts import OWN_LEDGER, OWN_NAME, BillingReport, Guardrail, observe_call
from worker.money.caps import TOTAL, UNCAPPED, Budgets, Cap, Ceiling, Owner
from worker.money.ledger import Terms
from worker.routes.names import canonical
from worker.routes.prices import dollars

log = logging.getLogger("failover.worker")

LOOK_SECONDS = 1.0
CAPS_KEPT = 10_000  # scopes whose cap was looked up
TOLD_SECONDS = 62 * 86400  # until the month of what billing was told is over
WAKE_LOOKS = 2  # looks after a change of caps: a job that was refused just before it may not wait yet at the first

WAKE_CAPPED = Script.load(Path(__file__).parent / "lua", "wake_capped")


@dataclass(frozen=True)
class CapStatus:
    """How far a scope is. `step`: the alert threshold that it has reached, in percent; `full`: less is left than some call
    may cost. Money in micro-dollars."""

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
    return tuple(sorted({*budgets.alert_thresholds, guardrail.at_percent}))


@dataclass(frozen=True)
class Standing:
    """What Redis says: caps that operators set, by scope; the scopes that have reached an alert threshold; why all cost is
    reduced."""

    caps: Mapping[str, Cap]
    cap_statuses: Mapping[str, CapStatus]
    reduced: str = ""


NOTHING = Standing({}, {})


def month_of(now: datetime) -> str:
    """As the keys name it."""
    return now.astimezone(UTC).strftime("%Y-%m")


def _commands(month: str) -> list[Command]:
    return [("HGETALL", keyspace.BUDGETS), ("HGETALL", keyspace.ALERT_THRESHOLDS + month), ("GET", keyspace.REDUCE)]


def standing(client: redis.Redis, month: str | None = None) -> Standing:
    """`month` as in 2026-11; None is this one."""
    return _standing(ask(client, _commands(month or month_of(datetime.now(UTC)))))


def _standing(replies: Iterable[Any]) -> Standing:
    """What cannot be read of it is passed over: anybody may write into Redis."""
    caps, alert_thresholds, reduced = replies
    cap_statuses = [
        status for scope, raw in sorted(alert_thresholds.items()) if (status := _cap_status(scope, raw)) is not None
    ]
    return Standing(
        {scope.decode(errors="replace"): cap for scope, raw in caps.items() if (cap := _cap(raw)) is not None},
        {status.scope: status for status in cap_statuses},
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


def _cap_status(scope: bytes, raw: bytes) -> CapStatus | None:
    try:
        told = json.loads(raw)
        numbers = {name: int(told[name]) for name in ("basis", "hard", "tokens", "spent")}
        return CapStatus(scope.decode(), float(told["step"]), bool(told["full"]), **numbers)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


class BudgetState:
    """What may be spent at one moment, by policies/budgets.yaml and by what Redis said of it last. Nothing in it changes."""

    def __init__(self, budgets: Budgets, standing: Standing = NOTHING) -> None:
        self.budgets, self.standing = budgets, standing
        self._caps: dict[str, Cap] = {}  # looked up before

    def cap(self, scope: str) -> Cap:
        """The operators', else the file's."""
        found = self._caps.get(scope)
        if found is None:
            if len(self._caps) > CAPS_KEPT:
                self._caps.clear()
            found = self._caps[scope] = self.standing.caps.get(scope) or self.budgets.cap_of(scope)
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

    def cost_saving(self, owner: Owner) -> str:
        """Why the job is to cost less; "" if it need not."""
        if not (self.standing.reduced or self.standing.cap_statuses):
            return ""
        if owner.feature in self.budgets.cost_saving.critical_features:
            return ""
        return self.standing.reduced or self._last(TOTAL, *owner.scopes)

    def avoided(self, providers: Iterable[str]) -> frozenset[str]:
        """Those whose month is at its last step."""
        if not self.standing.cap_statuses:
            return frozenset()
        return frozenset(each for each in providers if self._last(f"provider:{canonical(each)}"))

    def full(self, owner: Owner, provider: str) -> str:
        """Which hard cap has too little left for some calls, in words; "" for none."""
        cap_statuses = (self.standing.cap_statuses.get(scope) for scope in self._scopes(owner, provider))
        return next((str(status) for status in cap_statuses if status is not None and status.full), "")

    def _last(self, *scopes: str) -> str:
        """Which of them has reached the last alert threshold, in words."""
        last = self.budgets.alert_thresholds[-1]
        cap_statuses = (self.standing.cap_statuses.get(scope) for scope in scopes)
        return next((str(status) for status in cap_statuses if status is not None and status.step >= last), "")


class BudgetWatcher:
    """The budget state of one worker, kept up to date. `guardrail`: the threshold in force, at which our own ledger pauses."""

    def __init__(self, client: redis.asyncio.Redis, guardrail: Callable[[], Guardrail]) -> None:
        self.state = BudgetState(Budgets())
        self._client, self._guardrail = client, guardrail
        self._wakes = 0  # looks at which jobs that wait for money are to ask again
        self._paused = set[str]()  # messages that billing has heard

    def adopt(self, budgets: Budgets) -> None:
        """Go by this file from now on."""
        if budgets != self.state.budgets:
            self._wakes = WAKE_LOOKS
            self.state = BudgetState(budgets, self.state.standing)

    @property
    def steps(self) -> tuple[float, ...]:
        return steps_of(self.state.budgets, self._guardrail())

    async def look(self) -> None:
        """Read it anew. While Redis is away, what was last known holds."""
        month = month_of(datetime.now(UTC))
        found = _standing(await ask_async(self._client, _commands(month)))
        before = self.state.standing
        if found.caps != before.caps:
            self._wakes = WAKE_LOOKS
        if found.reduced != before.reduced:
            log.warning(found.reduced or "cost is not reduced any more")
        if found != before:
            self.state = BudgetState(self.state.budgets, found)
        await self._forget(month)
        await self._pause(month)
        if self._wakes:
            self._wakes -= 1
            await ask_async(self._client, [WAKE_CAPPED.call([keyspace.QUEUES], [])])

    async def _forget(self, month: str) -> None:
        """Rungs of caps that are others now, or none: the next call tells anew."""
        standing = self.state.standing
        stale = [
            scope for scope, status in standing.cap_statuses.items() if status.terms != self.state.cap(scope).terms
        ]
        if not stale:
            return
        kept = {scope: status for scope, status in standing.cap_statuses.items() if scope not in stale}
        self.state = BudgetState(self.state.budgets, replace(standing, cap_statuses=kept))
        terms = [f"terms:{scope}" for scope in stale]
        await ask_async(
            self._client,
            [("HDEL", keyspace.ALERT_THRESHOLDS + month, *stale), ("HDEL", keyspace.SPENT + month, *terms)],
        )

    async def _pause(self, month: str) -> None:
        """Billing hears of what our own ledger say of a provider's month, or the total's: once a step, whoever resumes."""
        guardrail = self._guardrail()
        for status in self.state.standing.cap_statuses.values():
            kind, _, provider = status.scope.partition(":")
            if kind not in (TOTAL, "provider") or status.step < guardrail.at_percent or status.basis <= 0:
                continue
            told = f"{OWN_LEDGER} {status.scope} {month} {status.step:g} {status.basis}"
            if told in self._paused:
                continue
            marker = keyspace.spend_message("told " + told)
            (known,) = await ask_async(self._client, [("EXISTS", marker)])
            if not known:
                percent = max(status.step, math.floor(1000 * status.spent / status.basis) / 10)
                spend = BillingReport(
                    provider or TOTAL, percent, "the ledger", interval=month, message_id=told,
                    budget_id=OWN_LEDGER, budget_name=OWN_NAME,
                )  # fmt: skip
                narrowed = replace(guardrail, scope="all" if kind == TOTAL else "provider")
                await ask_async(self._client, [observe_call(spend, narrowed), ("SET", marker, "1", "EX", TOLD_SECONDS)])
            self._paused.add(told)
