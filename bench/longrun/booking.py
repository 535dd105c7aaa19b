"""Jobs without a provider: their rows go through the ledger's own script, their outcomes through the history's stream."""

from __future__ import annotations

import random
from typing import Any

import redis
from pydantic_core import to_json

from producer import keyspace
from producer.scripts import ask
from worker.money.caps import Owner
from worker.money.ledger import LEDGER, Reservation, ledger_keys

PROVIDERS = ("openai", "anthropic", "google")
AT_ONCE = 200  # rows in one script call, as a busy worker has


class Book:
    """Books rows, and knows what their sums must be. Money in micro-dollars."""

    def __init__(self, client: redis.Redis, tenants: int) -> None:
        self._client, self._tenants, self._random = client, tenants, random.Random(1)
        self.rows = 0
        self.micros = 0
        self.of_tenant: dict[str, int] = {}

    def book(self, rows: int) -> None:
        """Book so many rows of done jobs, now."""
        for begin in range(0, rows, AT_ONCE):
            self._book(min(AT_ONCE, rows - begin))

    def _book(self, rows: int) -> None:
        keys, words = ledger_keys((60.0, 85.0, 95.0))
        steps: list[Any] = []
        pipeline = self._client.pipeline(transaction=False)
        for _ in range(rows):
            self.rows += 1
            micros, tenant = self._random.randrange(5000), f"tenant{self._random.randrange(self._tenants)}"
            feature = f"free text {self._random.randrange(self.rows)}"
            provider = self._random.choice(PROVIDERS)
            owner = Owner(f"job{self.rows}", tenant, "", feature, "ai-tasks", "")
            row = Reservation(f"job{self.rows}:e:1", owner, provider, f"{provider}/m", "m", "p 1/2", micros, 10)
            steps.append(["book", row.row, "settled", micros, 100, 20])
            self.micros += micros
            self.of_tenant[tenant] = self.of_tenant.get(tenant, 0) + micros
            outcome = {"kind": "done", "tenant": tenant, "feature": feature, "provider": provider, "flags": []}
            outcome |= {"route": f"{provider}/m", "answer_ms": micros, "run_ms": micros, "attempts": []}
            pipeline.xadd(keyspace.HAPPENED, {"e": to_json(outcome)})
        batch = [*words, self.rows, to_json(steps)]
        ask(self._client, [LEDGER.call([*keys, keyspace.booked("w"), keyspace.BUDGETS], batch)])
        pipeline.execute()
