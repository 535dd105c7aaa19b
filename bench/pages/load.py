"""Page Now and the lists with 100,000 jobs, 1,000 dead letters and 3,000 tenants; then 1 and 200 viewers of Now.

`python -m bench.pages.load` (`make bench-pages`) prints what was measured beside what is asked, and exits with 1 if something is
missed. The times are of requests over HTTP to a process of its own, while nothing else runs.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import aiohttp
import httpx
import redis

from bench.door.load import TOKEN
from bench.throughput import BIN, free_port
from ops.local import embedded
from producer import LLMJob, Producer, keyspace
from producer.connection import connect
from producer.job import DeadReason
from producer.policy import load_policies
from tests.support.transitions import Q, claim, settle
from worker.queue.outcomes import Dead

JOBS, DEAD, TENANTS, VIEWERS = 100_000, 1_000, 3_000, 200
NOW_MS, FIRST_KB, REFRESH_KB = 150, 150, 10
ROUNDS = 7
LOOK_SECONDS = 20.0
PAGES = (
    "/",
    "/ui/jobs",
    "/ui/jobs?tenant=t17",
    "/ui/dead-letters",
    "/ui/review",
    "/ui/incidents",
    "/ui/money",
    "/ui/history",
    "/ui/settings",
)


def fill(producer: Producer) -> None:
    """Queued jobs of many tenants, and the first of them as dead letters."""
    for start in range(0, JOBS, 10_000):
        jobs = [
            LLMJob.model_validate({"tenant_id": f"t{number % TENANTS}", "feature": f"f{number % 50}",
                                   "body": {"messages": [{"role": "user", "content": f"question {number}"}]}})
            for number in range(start, start + 10_000)
        ]  # fmt: skip
        producer.enqueue_many(jobs)
    bury(producer.client)


def bury(client: redis.Redis) -> None:
    for _ in range(DEAD // 100):
        for held in claim(client, 100):
            settle(client, held, Dead(DeadReason.EXHAUSTED, "the last: unavailable: 503", (), 100))


def signed_in(base: str) -> httpx.Client:
    person = httpx.Client(base_url=base, timeout=60, trust_env=False)
    assert person.post("/ui/sign-in", data={"token": TOKEN, "name": "bench", "next": "/"}).status_code == 303  # noqa: S101
    return person


def timed(person: httpx.Client, path: str) -> tuple[float, int]:
    """(median of the milliseconds until the whole page is there, its bytes). Page Now is made anew for each look."""
    took: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        answer = person.get(path)
        took.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, (path, answer.status_code)  # noqa: S101
        size = len(answer.content)
        time.sleep(1.05)
    return median(took), size


def first_weight(person: httpx.Client, path: str) -> int:
    """Bytes of a first visit: the page and what it loads, as they go over the wire."""
    page = person.get(path)
    urls = {part.partition('"')[0] for part in page.text.split('="')[1:] if part.startswith("/ui/static/")}
    files = [person.get(url) for url in urls]
    return len(page.content) + sum(int(each.headers["content-length"]) for each in files)


async def watch(base: str, cookie: str, viewers: int, client: redis.Redis) -> tuple[float, float]:
    """(Redis commands a second, bytes a second and viewer) while so many watch page Now and its facts change each second."""
    received = 0

    async def one(session: aiohttp.ClientSession) -> None:
        nonlocal received
        async with session.get(f"{base}/ui/live") as answer:
            async for piece in answer.content.iter_any():
                received += len(piece)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookies={"failover_session": cookie}) as session:
        tasks = [asyncio.create_task(one(session)) for _ in range(viewers)]
        await asyncio.sleep(4)
        before, received, began = commands(client), 0, time.monotonic()
        while (passed := time.monotonic() - began) < LOOK_SECONDS:
            await asyncio.to_thread(client.zadd, keyspace.finished(Q), {f"bench {viewers} {passed}": 9e9})
            await asyncio.sleep(1)
        rate = (commands(client) - before - LOOK_SECONDS) / passed
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return rate, received / passed / max(1, viewers)


def commands(client: redis.Redis) -> int:
    return int(client.info("stats")["total_commands_processed"])


def main() -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(embedded.running(folder / "valkey"))
        client = stack.enter_context(connect(url))
        fill(Producer(client, load_policies({})))
        client.set(
            keyspace.NOTIFIER, "bench", ex=3600
        )  # else the web process looks after all clients while no worker runs
        port = free_port()
        environment = {**os.environ, "REDIS_URL": url, "FAILOVER_API_TOKEN": TOKEN, "PORT": str(port)}
        log = stack.enter_context((folder / "serve.log").open("wb"))
        process = subprocess.Popen([BIN / "failover", "serve"], env=environment, cwd=folder, stdout=log, stderr=log)
        stack.callback(process.wait, 40)
        stack.callback(process.terminate)
        base = f"http://127.0.0.1:{port}"
        return report(base, client)


def report(base: str, client: redis.Redis) -> int:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        try:
            person = signed_in(base)
            break
        except httpx.TransportError:
            time.sleep(0.2)
    lines: list[tuple[str, float, float | None]] = []
    for path in PAGES:
        took, size = timed(person, path)
        lines += [
            (f"{path}: ms", took, NOW_MS if path == "/" else None),
            (f"{path}: KB of the page", size / 1000, None),
        ]
    for path in ("/", "/ui/history"):
        lines.append((f"{path}: KB of a first visit", first_weight(person, path) / 1000, FIRST_KB))
    cookie = person.cookies["failover_session"]
    nobody, _ = asyncio.run(watch(base, cookie, 0, client))
    one, weight = asyncio.run(watch(base, cookie, 1, client))
    many, _ = asyncio.run(watch(base, cookie, VIEWERS, client))
    lines += [("KB a refresh", weight / 1000, REFRESH_KB), ("Redis commands a second, 1 viewer", one - nobody, None),
              (f"Redis commands a second, {VIEWERS} viewers", many - nobody, 1.15 * (one - nobody) + 5)]  # fmt: skip
    return told(lines)


def told(lines: Sequence[tuple[str, float, float | None]]) -> int:
    missed = 0
    for name, value, most in lines:
        late = most is not None and value > most
        missed += late
        asked = "" if most is None else f"   at most {most:.1f}{'  MISSED' if late else ''}"
        print(f"{name:48} {value:9.1f}{asked}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
