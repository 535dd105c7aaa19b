"""The ledger of money, straight on a server: reservations, rows, sums."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import redis

from producer import keyspace
from producer.connection import connect_async
from producer.redis_server.cancelling import cancelled
from tests.support.replies import fields
from worker.history.archive import Archive
from worker.history.ledger_retention import LedgerRetention
from worker.history.policy import LedgerKept
from worker.money.budget_state import month_of
from worker.money.caps import Owner
from worker.money.ledger import Ledger, Reservation
from worker.queue.batcher import Batcher

STEPS = (60.0, 80.0, 85.0, 95.0)
MONTH = month_of(datetime.now(UTC))
KEPT = LedgerKept(rows=100, days=400)


def reservation(
    number: int, micros: int, hard: int = -1, basis: int | None = None, tokens: int = -1, **more: Any
) -> Reservation:
    owner = Owner(f"job{number}", "acme", "u1", "notes", "ai-tasks", f"job{number}:e")
    terms = (hard, hard if basis is None else basis, tokens)
    caps = {} if terms == (-1, -1, -1) else {"tenant:acme": terms}
    rest = {"tokens": 10, "caps": caps, **more}
    return Reservation(f"job{number}:e:1", owner, "openai", "openai/m", "m", "routes.json 1/2", micros, **rest)


def sums(client: redis.Redis) -> dict[str, int]:
    amounts = fields(client.hgetall(keyspace.SPENT + MONTH))
    amounts.pop("since", None)
    return {name: int(value) for name, value in amounts.items() if not name.startswith("terms:")}


def rows(client: redis.Redis) -> list[dict[str, str]]:
    entries: Any = client.xrange(keyspace.LEDGER + MONTH)
    return [fields(entry) for _, entry in entries]


def booked(url: str, work: Callable[[list[Ledger]], Awaitable[None]], workers: int = 1) -> None:
    """`work` with the ledgers of so many workers, each with a batcher of its own."""

    async def run() -> None:
        clients = [connect_async(url, max_connections=2) for _ in range(workers)]
        batchers = [Batcher(each, random.random) for each in clients]
        ledgers = [Ledger(uuid4().hex, each, lambda: STEPS) for each in batchers]
        tasks = [asyncio.create_task(batcher.run()) for batcher in batchers]
        try:
            await work(ledgers)
        finally:
            await cancelled(tasks)
            for batcher in batchers:  # as a worker does at its end: first nothing sends any more
                await batcher.flush()
            for client in clients:
                await client.aclose()

    asyncio.run(run())


def spend(url: str, numbers: Sequence[int], state: str = "settled", feature: str = "notes", cap: int = -1) -> None:
    """One closed row for each number, of so many micro-dollars."""

    async def work(ledgers: list[Ledger]) -> None:
        async def one(number: int) -> None:
            each = reservation(number, number)
            each.owner = replace(each.owner, feature=feature.format(number))
            each.caps = {"feature:" + each.owner.feature: (cap, cap, -1)} if cap >= 0 else {}
            assert await ledgers[0].reserve(each) is None
            ledgers[0].close(each, state, number, 7, 3)  # type: ignore[arg-type]

        await asyncio.gather(*map(one, numbers))

    booked(url, work)


def retained(url: str, archive: Archive | None, kept: LedgerKept = KEPT) -> str:
    """One step of a worker's retention. Returns its trouble."""

    async def step() -> str:
        client = connect_async(url, max_connections=2)
        try:
            retention = LedgerRetention(client, lambda: kept, archive)
            await retention.step()
            return retention.trouble
        finally:
            await client.aclose()

    return asyncio.run(step())
