"""The floor: a bare aiohttp loop that takes bodies from a list in memory. No queue, no result, no guarantee."""

from __future__ import annotations

import asyncio
import json
import sys

import aiohttp

from bench.peers.workload import COMPLETIONS, CONCURRENCY, STREAMED, body


async def main(jobs: int) -> None:
    more = {"stream": True} if STREAMED else {}
    bodies = iter([json.dumps(body(number) | more).encode() for number in range(jobs)])
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def work() -> None:
            for content in bodies:
                headers = {"content-type": "application/json"}
                async with session.post(COMPLETIONS, data=content, headers=headers) as response:
                    if not STREAMED:
                        json.loads(await response.read())
                        continue
                    async for line in response.content:
                        if line.startswith(b"data: {"):
                            json.loads(line[6:])

        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        await asyncio.Event().wait()  # its CPU is read from outside, so it stays


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
