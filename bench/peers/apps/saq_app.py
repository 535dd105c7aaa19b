"""saq: at-least-once, results in the job."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from saq import Queue

from bench.peers.apps.http import post
from bench.peers.workload import CONCURRENCY, KEEP_RESULTS_SECONDS, REDIS_URL, body

queue = Queue.from_url(f"{REDIS_URL}?max_connections={4 * CONCURRENCY}")  # the default of 100 is too few for its slots


async def complete(_context: Any, *, chat: dict[str, Any]) -> Any:
    return await post(chat)


settings = {"queue": queue, "functions": [complete], "concurrency": CONCURRENCY}


async def enqueue(jobs: int) -> None:
    await queue.connect()
    for number in range(jobs):
        await queue.enqueue("complete", chat=body(number), timeout=600, ttl=KEEP_RESULTS_SECONDS)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(enqueue(int(sys.argv[1])))
