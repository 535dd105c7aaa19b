"""A worker's heartbeat waits for none of its other calls."""

from __future__ import annotations

import asyncio

import pytest
import redis
import redis.asyncio

from producer import keyspace
from tests.support.polling import until
from tests.support.transitions import Q
from tests.support.workshop import Workshop
from worker.configuration import Configuration
from worker.queue import maintenance
from worker.worker import FailoverWorker


def test_a_heartbeat_waits_for_no_claim_and_no_result(
    workshop: Workshop, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection for claims, results and polls is taken, as while large replies arrive."""
    monkeypatch.setattr(maintenance, "HEARTBEAT_SECONDS", 0.2)
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()

    async def scenario() -> None:
        worker = FailoverWorker(workshop.url, [Q], Configuration.load(workshop.environment))
        record = keyspace.routes_of(worker.name)  # written with each heartbeat

        async def beats() -> None:
            await asyncio.to_thread(until, lambda: client.exists(record), "a heartbeat arrives", 8)

        running = asyncio.create_task(worker.run())
        await beats()
        pool = worker._redis.connection_pool
        assert isinstance(pool, redis.asyncio.BlockingConnectionPool)
        taken = [await pool.get_connection() for _ in range(pool.max_connections)]  # type: ignore[no-untyped-call]
        client.delete(record)
        await beats()
        for connection in taken:
            await pool.release(connection)
        worker.drain()
        await running

    asyncio.run(scenario())
