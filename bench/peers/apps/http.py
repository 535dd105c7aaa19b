"""The call as the asyncio peers make it: one aiohttp session per worker process."""

from __future__ import annotations

from typing import Any

import aiohttp

from bench.peers.workload import COMPLETIONS, CONCURRENCY

_session: aiohttp.ClientSession | None = None


async def post(body: dict[str, Any]) -> Any:
    global _session
    if _session is None:
        connector = aiohttp.TCPConnector(limit=CONCURRENCY)
        _session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600))
    async with _session.post(COMPLETIONS, json=body) as response:
        return await response.json()
