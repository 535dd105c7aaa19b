"""A worker's CPU a job while nobody and while 200 viewers look at page Now, in interleaved rounds.

`python -m bench.pages.worker [--rounds 3] [--jobs 2000]`. The worker has one core to itself; `failover serve`, its viewers, Redis
and the provider share another one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from statistics import median

import aiohttp

from bench.door.doors import ours
from bench.pages.load import VIEWERS, signed_in
from bench.peers.compare import Place, Profile, place_of, until_quiet
from bench.peers.compare import cpu_seconds as cpu_of
from bench.throughput import wait_until
from producer import LLMJob, Producer
from producer.connection import connect
from producer.policy import load_policies

PROFILE = Profile(100, (0.2, 0.6), 2000)


@contextlib.contextmanager
def looking(base: str, cookie: str, viewers: int) -> Iterator[None]:
    """So many read page Now as it changes, until the end of the block."""
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def one(session: aiohttp.ClientSession) -> None:
        async with session.get(f"{base}/ui/live") as answer:
            async for _ in answer.content.iter_any():
                pass

    async def all_of_them() -> None:
        cookies = {"failover_session": cookie}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookies=cookies) as session:
            tasks = [asyncio.create_task(one(session)) for _ in range(viewers)]
            await over.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(all_of_them(),))
    thread.start()
    time.sleep(3)
    yield
    loop.call_soon_threadsafe(over.set)
    thread.join()


def cost(place: Place, worker: int, jobs: int) -> float:
    """Milliseconds of the worker's CPU a job."""
    place.provider("reset")
    until_quiet(worker)
    before = cpu_of(worker)
    with connect(place.redis_url) as client:
        body = {"messages": [{"role": "user", "content": "hello"}]}
        Producer(client, load_policies({})).enqueue_many([LLMJob.model_validate({"body": body})] * jobs)
    wait_until(lambda: place.provider("stats")["answered"] >= jobs, "the end of the jobs")
    until_quiet(worker)
    return 1000 * (cpu_of(worker) - before) / jobs


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--jobs", type=int, default=PROFILE.jobs)
    given = options.parse_args()
    with place_of(PROFILE) as place, ours(place) as door:
        base, worker = door.url.removesuffix("/v1/chat/completions"), door.parts["worker"]
        cookie = signed_in(base).cookies["failover_session"]
        cost(place, worker, given.jobs)  # warms it
        rounds = []
        for _ in range(given.rounds):
            alone = cost(place, worker, given.jobs)
            with looking(base, cookie, VIEWERS):
                rounds.append((alone, cost(place, worker, given.jobs)))
            print(f"alone {rounds[-1][0]:.2f} ms a job, {VIEWERS} viewers {rounds[-1][1]:.2f}", flush=True)
    ratios = sorted(seen / alone for alone, seen in rounds)
    print(f"{VIEWERS} viewers: {median(ratios):.2f} x ({ratios[0]:.2f}-{ratios[-1]:.2f}) of the CPU a job without")
    return 0 if median(ratios) <= 1.1 else 1


if __name__ == "__main__":
    sys.exit(main())
