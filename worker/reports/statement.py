"""The ledger for people: the spending and the caps of each scope in a month, and the rows one by one."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest
from typing import Any

import redis
from pydantic_core import from_json, to_json

from producer import keyspace
from producer.scripts import ask
from worker.money import budget_state
from worker.money.budget_state import Standing, month_of
from worker.money.caps import REST, TOTAL, Budgets, Cap
from worker.money.ledger import CAP, COUNT_PAUSE_SECONDS, LEDGER, ledger_keys, month_sums
from worker.money.rows import closed_row, json_object
from worker.routes.prices import dollars

PAGE = 1000
LISTED, LISTED_CAPPED = 20, 200  # scopes in a listing for people or metrics: by spending of every kind; with a cap


@dataclass(frozen=True)
class Sums:
    """Micro-dollars and tokens of one scope and month. `ambiguous`: may have been billed; `held`: reserved by running
    calls."""

    spent: int = 0
    ambiguous: int = 0
    held: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Balance:
    """One scope, money in US dollars. `percent`: use of the amount that its alert thresholds refer to, or of its token cap,
    whichever is higher; None without a cap."""

    scope: str
    spent_usd: float
    ambiguous_usd: float
    held_usd: float
    tokens: int
    hard_usd: float | None
    soft_usd: float | None
    tokens_cap: int | None
    percent: float | None
    full: bool
    set_by: str | None = None


def sums(client: redis.Redis, month: str = "") -> dict[str, Sums]:
    """The sums by scope. `month`: such as 2026-11; "" is the present one (UTC)."""
    key = keyspace.SPENT + (month or month_of(datetime.now(UTC)))
    while True:
        there, flat = ask(client, [month_sums(month), ("HGETALL", key)])
        if there:
            break
        time.sleep(COUNT_PAUSE_SECONDS)
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for name, amount in flat.items():
        kind, _, scope = name.decode().partition(":")
        if scope and kind in Sums.__dataclass_fields__ and amount.lstrip(b"-").isdigit():
            found[scope][kind] = int(amount)
    return {scope: Sums(**kinds) for scope, kinds in found.items()}


def balances(
    found: Mapping[str, Sums], budgets: Budgets, standing: Standing, set_by: Mapping[str, str]
) -> list[Balance]:
    """One for each scope with spending or with a cap of its own; the total first."""
    named = [scope for scope in budgets.named if not scope.endswith(":default")]
    scopes = dict.fromkeys([TOTAL, *found, *standing.caps, *named])
    return [
        _balance(scope, found.get(scope, Sums()), standing.caps.get(scope) or budgets.cap_of(scope), standing, set_by)
        for scope in sorted(scopes, key=lambda scope: (scope != TOTAL, scope))
    ]


def _balance(scope: str, spending: Sums, cap: Cap, standing: Standing, set_by: Mapping[str, str]) -> Balance:
    _, basis, tokens = cap.terms
    status = standing.cap_statuses.get(scope)
    shares = [(spending.spent + spending.ambiguous, basis), (spending.tokens, tokens)]
    used = [100.0 if most == 0 else 100 * some / most for some, most in shares if most >= 0]
    return Balance(
        scope,
        dollars(spending.spent),
        dollars(spending.ambiguous),
        dollars(spending.held),
        spending.tokens,
        cap.hard_usd,
        cap.soft_usd,
        cap.tokens,
        max(used, default=None),
        status is not None and status.full,
        set_by.get(scope),
    )


def shortened(lines: Sequence[Balance], own: Collection[str]) -> tuple[list[Balance], dict[str, tuple[int, Balance]]]:
    """(What to list of `lines`, in their order; by kind of scope the number of all others and their sum).

    Listed are the total; scopes with a cap in `own` and those that are full, LISTED_CAPPED of them, the most used first; and
    of every kind the LISTED scopes with the highest spending.
    """
    capped = [line for line in lines if line.full or line.scope in own]
    chosen = {TOTAL, *(line.scope for line in nlargest(LISTED_CAPPED, capped, key=lambda line: line.percent or 0.0))}
    by_kind: dict[str, list[Balance]] = defaultdict(list)
    for line in lines:  # a `rest:user` of the ledger is already the sum of many: it joins those that are not listed
        by_kind[line.scope.removeprefix(f"{REST}:").partition(":")[0]].append(line)
    for some in by_kind.values():
        some = [line for line in some if not line.scope.startswith(f"{REST}:")]
        chosen |= {line.scope for line in nlargest(LISTED, some, key=lambda line: line.spent_usd + line.ambiguous_usd)}
    others = {kind: [line for line in some if line.scope not in chosen] for kind, some in by_kind.items()}
    rest = {kind: (len(some), _together(kind, some)) for kind, some in others.items() if some}
    return [line for line in lines if line.scope in chosen], rest


def _together(kind: str, lines: Sequence[Balance]) -> Balance:
    """The sum of many scopes, under a name that no scope has."""
    return Balance(
        scope=f"{REST}:{kind}",
        spent_usd=sum(line.spent_usd for line in lines),
        ambiguous_usd=sum(line.ambiguous_usd for line in lines),
        held_usd=sum(line.held_usd for line in lines),
        tokens=sum(line.tokens for line in lines),
        hard_usd=None,
        soft_usd=None,
        tokens_cap=None,
        percent=None,
        full=False,
    )


def set_by(client: redis.Redis) -> dict[str, str]:
    """By scope, who overrides the cap of policies/budgets.yaml."""
    (found,) = ask(client, [("HGETALL", keyspace.BUDGETS)])
    return {scope.decode(errors="replace"): str(json_object(raw).get("who", "?")) for scope, raw in found.items()}


def set_cap(client: redis.Redis, scope: str, cap: Cap | None, month: str, who: str) -> bool:
    """Override the cap of policies/budgets.yaml; `cap` None removes the override. Returns whether anything changed."""
    override = "" if cap is None else json.dumps({**cap.model_dump(), "terms": cap.terms, "who": who})
    keys = [keyspace.BUDGETS, keyspace.ALERT_THRESHOLDS + month, keyspace.AUDIT, keyspace.SPENT + month]
    (changed,) = ask(client, [CAP.call(keys, [scope, override, who])])
    return bool(changed)


def cap_now(client: redis.Redis, budgets: Budgets, scope: str) -> Cap:
    """The cap that holds: the override of an operator, or that of policies/budgets.yaml."""
    return budget_state.standing(client).caps.get(scope) or budgets.cap_of(scope)


def settle(client: redis.Redis, steps: Sequence[float], ids: Sequence[str], month: str, micros: int) -> int:
    """Record that each of these ambiguous rows cost `micros` micro-dollars. `steps`: the alert thresholds in percent.

    Returns the number of settled rows.
    """
    keys, words = ledger_keys(steps)
    closes = [["close", row_id, month, "settled", micros, 0, 0] for row_id in ids]
    batch = [*words, time.time_ns(), to_json(closes)]
    (reply,) = ask(client, [LEDGER.call([*keys, keyspace.booked("failover budget settle"), keyspace.BUDGETS], batch)])
    return sum(answer == ["closed"] for answer in from_json(reply))


def rows(client: redis.Redis, month: str) -> Iterator[dict[str, Any]]:
    """Every row of a month: settled and released rows in their order, then ambiguous and running ones. Money in
    micro-dollars."""
    begin = "-"
    while True:
        (page,) = ask(client, [("XRANGE", keyspace.LEDGER + month, begin, "+", "COUNT", PAGE)])
        for entry_id, flat in page:
            begin = f"({entry_id.decode()}"
            yield closed_row(flat)
        if len(page) < PAGE:
            break
    for key in (keyspace.AMBIGUOUS + month, keyspace.RESERVATIONS):
        (found,) = ask(client, [("HVALS", key)])
        open_rows = (json_object(raw) for raw in found)
        yield from ({name: row.get(name) for name in _OPEN} for row in open_rows if row.get("month") == month)


_OPEN = ("id", "state", "at", "micros", "job", "tenant", "user", "feature", "provider", "route", "model", "price")
