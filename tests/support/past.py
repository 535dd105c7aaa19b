"""Writes a past into the history, through the streams and the scripts that workers use: jobs that ended at any time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from producer import keyspace
from producer.connection import connect_async
from worker.history.collector import Collector
from worker.money.budget_state import month_of

AT_ONCE = 2000


@dataclass(frozen=True)
class Ended:
    """One job that ended. `died`: why it is a dead letter, "" if it was answered. `failed`: outcomes of calls before, by
    (route, code)."""

    at_ms: int
    tenant: str = "acme"
    feature: str = "faq"
    route: str = "a/a-1"
    answer_ms: float = 800
    run_ms: float | None = None
    micros: int = 5_000
    died: str = ""
    flags: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()

    def record(self) -> str:
        """As worker/queue/outcome_events.py writes it."""
        run = self.answer_ms if self.run_ms is None else self.run_ms
        attempts = [[route, code, run] for route, code in self.failed]
        names: dict[str, object] = {"tenant": self.tenant, "feature": self.feature}
        if self.died:
            return json.dumps({**names, "attempts": attempts, "kind": "dead", "reason": self.died})
        attempts.append([self.route, "ok", run])
        times = {"answer_ms": self.answer_ms, "run_ms": run, "cost_micros": self.micros}
        where = {"route": self.route, "provider": self.route.partition("/")[0]}
        return json.dumps({**names, **where, **times, "attempts": attempts, "kind": "done", "flags": self.flags})


def write(
    client: redis.Redis, url: str, jobs: Iterable[Ended], maintained: Callable[[int], bool] = lambda minute: False
) -> None:
    """Write these jobs, in the order of their ends, and count them. Rows of answers go to the ledger of this month, whatever
    the time of their end is, because only the ledgers of these days are counted."""
    ledger = keyspace.LEDGER + month_of(datetime.now(UTC))
    pipeline = client.pipeline(transaction=False)
    for job in jobs:
        pipeline.xadd(keyspace.HAPPENED, {"e": job.record()}, id=f"{job.at_ms}-*")
        if not job.died:
            row: dict[Any, Any] = {
                "state": "settled",
                "micros": job.micros,
                "prompt": 10,
                "completion": 5,
                "tenant": job.tenant,
            }
            row |= {"feature": job.feature, "route": job.route, "provider": job.route.partition("/")[0]}
            pipeline.xadd(ledger, row, id=f"{job.at_ms}-*")
        if len(pipeline) >= AT_ONCE:
            pipeline.execute()
    pipeline.execute()
    asyncio.run(_collect(url, maintained))


async def _collect(url: str, maintained: Callable[[int], bool]) -> None:
    client = connect_async(url, max_connections=2)
    try:
        await Collector(client, maintained=maintained).step()
    finally:
        await client.aclose()
