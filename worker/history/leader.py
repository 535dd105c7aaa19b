"""One of the workers keeps the history for all: it counts what happened, then takes old ledger rows out of Redis."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import redis.asyncio

from producer import keyspace
from producer.scripts import ask_async, hold
from worker.history.archive import VARIABLE, Archive
from worker.history.collector import Collector
from worker.history.ledger_retention import LedgerRetention
from worker.history.policy import HistoryPolicy

STEP_SECONDS = 10.0
LEADS_MS = 60_000  # after its last step. Two leaders at once do no harm


class HistoryLeader:
    """The part of a worker that may keep the history. `policy` returns the one in force, `open_routes` the routes whose
    breaker is open now; `maintained`: as the collector's."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        worker_name: str,
        policy: Callable[[], HistoryPolicy],
        archive: Archive | None,
        queues: Sequence[str] = (),
        open_routes: Callable[[], Collection[str]] = tuple,
        maintained: Callable[[int], bool] = lambda minute: False,
    ) -> None:
        self._client, self._name = client, worker_name
        self._collector = Collector(client, queues, open_routes, maintained)
        self._retention = LedgerRetention(client, lambda: policy().ledger, archive)

    async def step(self) -> None:
        """Keep the history, if this worker leads. Rows are counted before they leave. Raises RedisError."""
        if await self._leads():
            await self._collector.step(STEP_SECONDS)
            await self._retention.step()

    @property
    def trouble(self) -> list[str]:
        """What keeps old rows in Redis, as text for people; empty if nothing does."""
        why = self._retention.trouble
        return [f"ledger rows cannot be written to {VARIABLE}, they stay in Redis: {why}"] if why else []

    async def _leads(self) -> bool:
        (ours,) = await ask_async(self._client, [hold(keyspace.HISTORY_LEADER, self._name, LEADS_MS)])
        return bool(ours)
