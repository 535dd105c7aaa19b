"""`make bench-start`: how soon a command answers, and how soon a worker has a job in hand, beside what Python needs at least.

    python -m bench.worker.start [--rounds 10]

Seconds at the median, and the least and the most. The floor of each is a Python that imports what the command cannot do without,
in the same rounds: click for `--help`, click and redis for `status`, and redis and aiohttp for a worker.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import redis

from bench.throughput import BIN, bench_place
from producer import LLMJob, Producer, keyspace
from producer.connection import connect
from producer.policy import load_policies

WANTED = {"failover --help": 0.15, "failover status": 0.25, "failover-worker, to its first claim": 0.35}
FLOORS = {
    "failover --help": "import click",
    "failover status": "import click, redis",
    "failover-worker, to its first claim": "import redis.asyncio, aiohttp",
}


def ran(command: list[str], environment: dict[str, str]) -> float:
    """Seconds until the command has ended."""
    began = time.monotonic()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def claimed(client: redis.Redis, environment: dict[str, str]) -> float:
    """Seconds from the start of a worker until the job that waits for it is leased."""
    client.flushall()
    Producer(client, load_policies({})).enqueue(LLMJob(body={"messages": [{"role": "user", "content": "note"}]}))
    leases, began = keyspace.leases("ai-tasks"), time.monotonic()
    worker = subprocess.Popen(
        [str(BIN / "failover-worker")], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not client.exists(leases):
            pass
        return time.monotonic() - began
    finally:
        worker.kill()
        worker.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url, more, _ = stack.enter_context(bench_place((1.0, 1.0)))
        client = stack.enter_context(connect(url))
        environment = {**os.environ, **more}
        failover = str(BIN / "failover")
        ours: dict[str, Callable[[], float]] = {
            "failover --help": lambda: ran([failover, "--help"], environment),
            "failover status": lambda: ran([failover, "status"], environment),
            "failover-worker, to its first claim": lambda: claimed(client, environment),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ours}
        for _ in range(chosen.rounds):
            for name, measure in ours.items():
                times[name].append((measure(), ran([sys.executable, "-c", FLOORS[name]], environment)))
    for name, rounds in times.items():
        took, ratio = sorted(each[0] for each in rounds), median(each[0] / each[1] for each in rounds)
        verdict = "passed" if median(took) <= WANTED[name] else "FAILED"
        spread = f"{median(took):.2f} s ({took[0]:.2f}-{took[-1]:.2f})"
        print(f"{verdict}  {name:36} {spread}, at most {WANTED[name]}; {ratio:.1f} x `{FLOORS[name]}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
