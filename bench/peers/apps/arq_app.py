"""arq: at-least-once, results kept."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from bench.peers.apps.http import post
from bench.peers.workload import CONCURRENCY, KEEP_RESULTS_SECONDS, REDIS_URL, body


async def complete(_context: Any, chat: dict[str, Any]) -> Any:
    return await post(chat)


class WorkerSettings:
    functions = (complete,)
    redis_settings = RedisSettings.from_dsn(REDIS_URL)
    max_jobs = CONCURRENCY
    job_timeout = 600
    keep_result = KEEP_RESULTS_SECONDS


async def enqueue(jobs: int) -> None:
    pool = await create_pool(RedisSettings.from_dsn(REDIS_URL))
    for number in range(jobs):
        await pool.enqueue_job("complete", body(number))
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(enqueue(int(sys.argv[1])))
