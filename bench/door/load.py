"""Chat requests at a fixed rate, as OpenAI's SDK sends them.

The rate does not wait for answers (an open loop), and a request's time begins when it should have been sent: what waits because
others are late counts as late, too.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from statistics import median, quantiles

import aiohttp

from bench.peers.workload import answer, body

TOKEN = "sk-of-the-bench"  # noqa: S105 - its servers last as long as it does
HEADERS = {
    "authorization": f"Bearer {TOKEN}",
    "accept": "application/json",
    "content-type": "application/json",
    "user-agent": "OpenAI/Python 2.9.0",
    "x-stainless-arch": "x64",
    "x-stainless-async": "async:asyncio",
    "x-stainless-lang": "python",
    "x-stainless-os": "Linux",
    "x-stainless-package-version": "2.9.0",
    "x-stainless-read-timeout": "600",
    "x-stainless-retry-count": "0",
    "x-stainless-runtime": "CPython",
    "x-stainless-runtime-version": "3.11.7",
}
LONGEST_SECONDS = 60.0
WANTED = json.loads(answer())["choices"][0]["message"]["content"].encode()


@dataclass
class Times:
    """Milliseconds of each answered request beyond the provider's own time, in the order of the answers. `failed`: why a request
    has no answer."""

    beyond: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.beyond)

    @property
    def p99(self) -> float:
        return quantiles(self.beyond, n=100)[-1]


@dataclass(frozen=True)
class Load:
    """`rate`: requests a second, during `seconds`. Before that come `settling_seconds` at the same rate whose times do not count,
    because connections are opened. `provider_seconds`: the provider's latency. `bound_ms`: the load ends as soon as more than one
    request in a hundred takes longer or fails: it cannot hold that p99 any more."""

    rate: float
    seconds: float
    provider_seconds: float
    settling_seconds: float = 0.0
    bound_ms: float | None = None

    @property
    def requests(self) -> int:
        """All, those of the settling too."""
        return self.settling + round(self.rate * self.seconds)

    @property
    def settling(self) -> int:
        return round(self.rate * self.settling_seconds)

    def run(self, url: str) -> Times | None:
        """The times; None if the bound was not held."""
        return asyncio.run(_Run(self, url).whole())


class _Run:
    """One load."""

    def __init__(self, load: Load, url: str) -> None:
        self._load, self._url = load, url
        self._times, self._late, self._broken = Times(), 0, asyncio.Event()

    async def whole(self) -> Times | None:
        load = self._load
        contents = [json.dumps(body(number)).encode() for number in range(load.requests)]
        timeout, connector = aiohttp.ClientTimeout(total=LONGEST_SECONDS), aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            asked, began = list[asyncio.Task[None]](), time.perf_counter()
            for number, content in enumerate(contents):
                due = (
                    began + (number + random.random()) / load.rate
                )  # so that nothing beats with the provider's latency
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if self._broken.is_set():
                    break
                asked.append(asyncio.create_task(self._one(session, content, due, counts=number >= load.settling)))
            broken, answered = asyncio.create_task(self._broken.wait()), asyncio.create_task(asyncio.wait(asked))
            await asyncio.wait([broken, answered], return_when=asyncio.FIRST_COMPLETED)
            for task in (broken, answered, *asked):
                task.cancel()
            await asyncio.gather(broken, answered, *asked, return_exceptions=True)
        return None if self._broken.is_set() else self._times

    async def _one(self, session: aiohttp.ClientSession, content: bytes, due: float, *, counts: bool) -> None:
        load, failure, took = self._load, "", float("inf")
        try:
            async with session.post(self._url, data=content, headers=HEADERS) as response:
                raw = await response.read()
            took = 1000 * (time.perf_counter() - due - load.provider_seconds)
            if response.status != 200 or WANTED not in raw:
                failure = f"{response.status} {raw[:200]!r}"
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = f"{type(error).__name__}: {error}"
        if failure:
            self._times.failed.append(failure)
        elif counts:
            self._times.beyond.append(took)
        if load.bound_ms is not None and (failure or (counts and took > load.bound_ms)):
            self._late += 1
            if self._late > (load.requests - load.settling) / 100:
                self._broken.set()
