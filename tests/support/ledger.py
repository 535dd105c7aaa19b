"""The ledger of money, straight on a server: reservations, rows, sums."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import redis

from producer import keyspace
from producer.connection import connect_async
from tests.support.replies import fields
from worker.money.budget_state import month_of
from worker.money.caps import Owner
from worker.money.ledger import Ledger, Reservation
from worker.queue.batcher import Batcher

STEPS = (60.0, 80.0, 85.0, 95.0)
MONTH = month_of(datetime.now(UTC))


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
            for batcher in batchers:
                await batcher.flush()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for client in clients:
                await client.aclose()

    asyncio.run(run())
