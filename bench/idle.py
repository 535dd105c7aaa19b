"""`make bench-idle`: what a worker without jobs costs: round trips and commands of Redis, and CPU, a second.

    python -m bench.idle [--seconds 30]

Default settings. The first worker leads as the notifier, with the log as its only channel; the second one does not lead. CPU is
that of the process with all of its threads, from the kernel's scheduler.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

import redis

from bench.throughput import BIN, bench_place, process, wait_until
from producer import keyspace
from producer.connection import connect

MOST_ROUND_TRIPS = 6.0  # a second and worker
MOST_CPU_PERCENT = 0.3  # of a core
START_SECONDS = 6.0  # after which a worker's start is over


def cpu_seconds(pid: int) -> float:
    """CPU of a process so far, exact to the microsecond (`/proc/PID/stat` counts in hundredths)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def counts(client: redis.Redis) -> tuple[int, int]:
    """Round trips (reads from clients) and commands, also those inside scripts, so far."""
    stats = client.info("commandstats")
    return client.info("stats")["total_reads_processed"], sum(each["calls"] for each in stats.values())


def a_second(client: redis.Redis, pid: int, seconds: float) -> dict[str, float]:
    """Of all workers in `seconds`; the CPU is that of process `pid`."""
    time.sleep(START_SECONDS)
    (reads, commands), cpu, began = counts(client), cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    took, used = time.monotonic() - began, cpu_seconds(pid) - cpu
    reads_after, commands_after = counts(client)
    found = {"round trips": (reads_after - reads - 2) / took, "commands": (commands_after - commands) / took}
    return {**found, "CPU %": 100 * used / took}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    chosen = parser.parse_args()
    command = [str(BIN / "failover-worker")]
    with contextlib.ExitStack() as stack:
        url, environment, folder = stack.enter_context(bench_place((0.01, 0.01)))
        client = stack.enter_context(connect(url))
        leads = stack.enter_context(process(command, environment, folder / "leads.log"))
        wait_until(lambda: bool(client.exists(keyspace.NOTIFIER)), "the start of the first worker")
        first = a_second(client, leads.pid, chosen.seconds)
        other = stack.enter_context(process(command, environment, folder / "other.log"))
        wait_until(lambda: client.scard(keyspace.WORKERS) == 2, "the start of the second worker")
        both = a_second(client, other.pid, chosen.seconds)
    second = {**{name: both[name] - first[name] for name in both}, "CPU %": both["CPU %"]}
    passed = True
    for name, found in (("leads", first), ("does not", second)):
        good = found["round trips"] <= MOST_ROUND_TRIPS and found["CPU %"] <= MOST_CPU_PERCENT
        passed = passed and good
        print(f"{name:9} {'passed' if good else 'FAILED'}  {json.dumps({k: round(v, 2) for k, v in found.items()})}")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
