"""The floor: a bare aiohttp loop that takes bodies from a list in memory. No queue, no result, no guarantee."""

from __future__ import annotations

import asyncio
import json
import sys

import aiohttp

from bench.peers.workload import COMPLETIONS, CONCURRENCY, body


async def main(jobs: int) -> None:
    bodies = iter([json.dumps(body(number)).encode() for number in range(jobs)])
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def work() -> None:
            for content in bodies:
                headers = {"content-type": "application/json"}
                async with session.post(COMPLETIONS, data=content, headers=headers) as response:
                    json.loads(await response.read())

        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        await asyncio.Event().wait()  # its CPU is read from outside, so it stays


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
