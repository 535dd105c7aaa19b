"""taskiq: its list queue (a job is gone once it is taken) and results in Redis."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from bench.peers.apps.http import post
from bench.peers.workload import KEEP_RESULTS_SECONDS, REDIS_URL, body

broker = ListQueueBroker(REDIS_URL, queue_name="taskiq").with_result_backend(
    RedisAsyncResultBackend(REDIS_URL, result_ex_time=KEEP_RESULTS_SECONDS)
)


@broker.task
async def complete(chat: dict[str, Any]) -> Any:
    return await post(chat)


async def enqueue(jobs: int) -> None:
    await broker.startup()
    for number in range(jobs):
        await complete.kiq(body(number))
    await broker.shutdown()


if __name__ == "__main__":
    from bench.peers.apps import taskiq_app  # its tasks are named by this module, not by __main__

    asyncio.run(taskiq_app.enqueue(int(sys.argv[1])))
