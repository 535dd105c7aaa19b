"""One worker's copy of the budgets: the caps of the file, the caps that operators set over them, and how much is used.

It is read every second, and serves the alert thresholds, cost saving and the pause. Hard caps are enforced by the ledger
itself (ledger.py), to the micro-dollar.
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
from producer.scripts import Command, Script, although_full, ask, ask_async
from worker.humanize import money
from worker.money.billing_alerts import OWN_LEDGER, OWN_NAME, BillingReport, Guardrail, observe_call
from worker.money.caps import TOTAL, UNCAPPED, Budgets, Cap, Ceiling, Owner
from worker.money.ledger import Terms
from worker.routes.names import canonical
from worker.routes.prices import dollars

log = logging.getLogger("failover.worker")

LOOK_SECONDS = 1.0
CAPS_KEPT = 10_000  # scopes in the memory of caps; beyond it, the memory is cleared
TOLD_SECONDS = 62 * 86400  # how long a reported step is remembered: longer than its month
WAKE_LOOKS = (
    2  # looks that wake jobs after a change of caps: one that was refused just before may not wait yet at the first
)

WAKE_CAPPED = Script.load(Path(__file__).parent / "lua", "wake_capped")


@dataclass(frozen=True)
class CapStatus:
    """How much of its cap a scope has used this month. Money in micro-dollars.

    `step`: the alert threshold that it has reached, in percent. `full`: less is left than the maximum cost of a call that
    was refused. `basis`: the amount that the percentages refer to. `hard`, `tokens`: the hard caps, -1 for none.
    """

    scope: str
    step: float
    full: bool
    basis: int
    hard: int
    tokens: int
    spent: int

    @property
    def terms(self) -> Terms:
        """The cap that this status was computed with."""
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
    """What happens to a scope's jobs when nothing is left of its cap, as text for people."""
    return "other providers serve its jobs" if scope.startswith("provider:") else "its jobs wait"


def steps_of(budgets: Budgets, guardrail: Guardrail) -> tuple[float, ...]:
    """The percentages at which the ledger records that a scope has reached them: alert thresholds, and the pause's."""
    return tuple(sorted({*budgets.alert_thresholds, guardrail.at_percent}))


@dataclass(frozen=True)
class Standing:
    """The budget state in Redis. `caps`: set by operators, by scope. `cap_statuses`: scopes that have reached an alert
    threshold or are full. `reduced`: why operators reduce the cost of every job, as text; "" if they do not."""

    caps: Mapping[str, Cap]
    cap_statuses: Mapping[str, CapStatus]
    reduced: str = ""


NOTHING = Standing({}, {})


def month_of(now: datetime) -> str:
    """The UTC month as keys name it: `2026-11`."""
    return now.astimezone(UTC).strftime("%Y-%m")


def _commands(month: str) -> list[Command]:
    return [("HGETALL", keyspace.BUDGETS), ("HGETALL", keyspace.ALERT_THRESHOLDS + month), ("GET", keyspace.REDUCE)]


def standing(client: redis.Redis, month: str | None = None) -> Standing:
    """Read the budget state of a month (as in 2026-11; None is this one)."""
    return _standing(ask(client, _commands(month or month_of(datetime.now(UTC)))))


def _standing(replies: Iterable[Any]) -> Standing:
    """Entries that cannot be read are skipped: anybody can write into Redis."""
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
        note = json.loads(raw)
        why = f": {note['why']}" if note.get("why") else ""
        return f"cost is reduced by {note['who']}{why}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return "cost is reduced by somebody"


def _cap(raw: bytes) -> Cap | None:
    try:
        fields = json.loads(raw)
        return Cap.model_validate({name: fields.get(name) for name in Cap.model_fields})
    except (ValueError, AttributeError):
        return None


def _cap_status(scope: bytes, raw: bytes) -> CapStatus | None:
    try:
        fields = json.loads(raw)
        numbers = {name: int(fields[name]) for name in ("basis", "hard", "tokens", "spent")}
        return CapStatus(scope.decode(), float(fields["step"]), bool(fields["full"]), **numbers)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


class BudgetState:
    """The budgets at one moment: policies/budgets.yaml, and the last state read from Redis. Immutable."""

    def __init__(self, budgets: Budgets, standing: Standing = NOTHING) -> None:
        self.budgets, self.standing = budgets, standing
        self._caps: dict[str, Cap] = {}  # results of `cap`

    def cap(self, scope: str) -> Cap:
        """The cap of a scope: set by operators, else by the file."""
        found = self._caps.get(scope)
        if found is None:
            if len(self._caps) > CAPS_KEPT:
                self._caps.clear()
            found = self._caps[scope] = self.standing.caps.get(scope) or self.budgets.cap_of(scope)
        return found

    def _scopes(self, owner: Owner, provider: str | None) -> tuple[str, ...]:
        """The scopes that a call counts for. `provider` None: the tenant's own key pays, so our total does not count it."""
        return owner.scopes if provider is None else (TOTAL, f"provider:{canonical(provider)}", *owner.scopes)

    def terms(self, owner: Owner, provider: str | None) -> dict[str, Terms]:
        """The caps that apply to a call, by scope."""
        return {scope: cap.terms for scope in self._scopes(owner, provider) if (cap := self.cap(scope)).sets}

    def ceiling(self, owner: Owner, provider: str) -> Ceiling:
        """The lowest hard caps that apply to the job's calls to a provider."""
        caps = [(scope, cap) for scope in self._scopes(owner, provider) if (cap := self.cap(scope)).holds]
        if not caps:
            return UNCAPPED
        hard = min(((cap.terms[0], scope) for scope, cap in caps if cap.hard_usd is not None), default=(None, ""))
        tokens = min((cap.tokens for _, cap in caps if cap.tokens is not None), default=None)
        return Ceiling(hard[0], hard[1], tokens)

    def cost_saving(self, owner: Owner) -> str:
        """Why the job runs in cost-saving mode, as text; "" if it does not."""
        if not (self.standing.reduced or self.standing.cap_statuses):
            return ""
        if owner.feature in self.budgets.cost_saving.critical_features:
            return ""
        return self.standing.reduced or self._last(TOTAL, *owner.scopes)

    def avoided(self, providers: Iterable[str]) -> frozenset[str]:
        """The providers whose budget of this month has reached the last alert threshold."""
        if not self.standing.cap_statuses:
            return frozenset()
        return frozenset(each for each in providers if self._last(f"provider:{canonical(each)}"))

    def full(self, owner: Owner, provider: str) -> str:
        """The hard cap that has too little left for some calls, as text for people; "" for none."""
        cap_statuses = (self.standing.cap_statuses.get(scope) for scope in self._scopes(owner, provider))
        return next((str(status) for status in cap_statuses if status is not None and status.full), "")

    def _last(self, *scopes: str) -> str:
        """The first of the scopes that has reached the last alert threshold, as text for people; "" for none."""
        last = self.budgets.alert_thresholds[-1]
        cap_statuses = (self.standing.cap_statuses.get(scope) for scope in scopes)
        return next((str(status) for status in cap_statuses if status is not None and status.step >= last), "")


class BudgetWatcher:
    """Keeps the budget state of one worker up to date. `guardrail` returns the threshold in force for budget pauses."""

    def __init__(self, client: redis.asyncio.Redis, guardrail: Callable[[], Guardrail]) -> None:
        self.state = BudgetState(Budgets())
        self._client, self._guardrail = client, guardrail
        self._wakes = 0  # how many of the next looks wake the jobs that wait for budget
        self._paused = set[str]()  # reports that were made already
        self._replies: list[Any] = []
        self._found = NOTHING

    def adopt(self, budgets: Budgets) -> None:
        """Use this budgets.yaml from now on."""
        if budgets != self.state.budgets:
            self._wakes = WAKE_LOOKS
            self.state = BudgetState(budgets, self.state.standing)

    @property
    def steps(self) -> tuple[float, ...]:
        """The percentages that the ledger records, in the present configuration."""
        return steps_of(self.state.budgets, self._guardrail())

    async def look(self) -> None:
        """Read the state from Redis. While Redis is away, the last known state stays. Raises RedisError."""
        month = month_of(datetime.now(UTC))
        replies = await ask_async(self._client, _commands(month))
        if replies != self._replies:  # caps of thousands of tenants are not parsed again each second
            self._replies, self._found = replies, _standing(replies)
        found, before = self._found, self.state.standing
        if found.caps != before.caps:
            self._wakes = WAKE_LOOKS
        if found.reduced != before.reduced:
            log.warning(found.reduced or "cost reduction ended")
        if found != before:
            self.state = BudgetState(self.state.budgets, found)
        await self._forget(month)
        await self._pause(month)
        if self._wakes:
            self._wakes -= 1
            await ask_async(self._client, [WAKE_CAPPED.call([keyspace.QUEUES], [])])

    async def _forget(self, month: str) -> None:
        """Delete the statuses of caps that have changed or are gone: the next call records them again."""
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
        """Report what our own ledger has of a provider's budget, or of the total, as a billing alert: it pauses jobs.

        Each step is reported once, so that a pause does not return after an operator resumed.
        """
        guardrail = self._guardrail()
        for status in self.state.standing.cap_statuses.values():
            kind, _, provider = status.scope.partition(":")
            if kind not in (TOTAL, "provider") or status.step < guardrail.at_percent or status.basis <= 0:
                continue
            report = f"{OWN_LEDGER} {status.scope} {month} {status.step:g} {status.basis}"
            if report in self._paused:
                continue
            marker = keyspace.spend_message("told " + report)
            (known,) = await ask_async(self._client, [("EXISTS", marker)])
            if not known:
                percent = max(status.step, math.floor(1000 * status.spent / status.basis) / 10)
                spend = BillingReport(
                    provider or TOTAL, percent, "the ledger", interval=month, message_id=report,
                    budget_id=OWN_LEDGER, budget_name=OWN_NAME,
                )  # fmt: skip
                narrowed = replace(guardrail, scope="all" if kind == TOTAL else "provider")
                marked = although_full(("SET", marker, "1", "EX", TOLD_SECONDS))
                await ask_async(self._client, [observe_call(spend, narrowed), marked])
            self._paused.add(report)
