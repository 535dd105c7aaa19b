"""`make bench-batch`: `failover batch run` of 50,000 lines beside the worker's own rate in the same rounds; 300 MB in 60 lines.

    python -m bench.worker.batch_run [--lines 50000] [--rounds 3]

The worker has one core; the command, Redis and a provider that answers at once share the other. Its own rate is that of a queue
that was filled before it started. Memory is the highest of the command's process, from the kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.peers.compare import OURS, PROFILES, WORKERS_CORE, Place, measure, place_of, rss_mb
from bench.peers.contestants import contestants
from bench.peers.workload import body
from bench.throughput import BIN, process, wait_until
from producer.connection import connect

LARGE_LINES, LARGE_BYTES = 60, 5_000_000
LEAST_RATIO, MOST_MB = 0.9, 500.0


@dataclass(frozen=True)
class Run:
    """`seconds`: from the command's start to its end. `command_mb`, `worker_mb`: the most, and at the end."""

    seconds: float
    jobs_per_second: float
    command_cpu_seconds: float
    command_mb: float
    worker_mb: float


def lines(count: int, more_bytes: int = 0) -> Iterator[str]:
    for number in range(count):
        request = body(number)
        if more_bytes:
            request["messages"] += [{"role": "user", "content": "word " * (more_bytes // 5)}]
        yield json.dumps({"custom_id": f"line {number}", "body": request}) + "\n"


def run(place: Place, source: Path, count: int, concurrency: int) -> Run:
    """One batch file through the command, and a worker that waits for it."""
    output = source.with_suffix(".out")
    with connect(place.redis_url) as client:
        client.flushall()
    place.provider("reset")
    worker = [str(BIN / "failover-worker"), "--concurrency", str(concurrency)]
    with process(worker, place.environment, place.log, WORKERS_CORE) as running, connect(place.redis_url) as client:
        wait_until(lambda: client.scard("rq:workers") == 1, "the worker")
        began, log = time.monotonic(), source.with_suffix(".log").open("wb")
        with log:
            command = [str(BIN / "failover"), "batch", "run", str(source), "-o", str(output)]
            pid = subprocess.Popen(command, env=place.environment, stdout=log, stderr=log).pid
            _, status, used = os.wait4(pid, 0)
        took = time.monotonic() - began
        if status or output.read_bytes().count(b"\n") != count:
            raise SystemExit(f"bench: the batch did not end well: {source.with_suffix('.log').read_text()[-500:]}")
        counted, worker_mb = place.provider("stats"), rss_mb(running.pid)
    rate = count / (counted["last"] - counted["first"])
    output.unlink()
    return Run(took, rate, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000, worker_mb)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    profile, ratios, most = PROFILES["zero"], list[float](), list[float]()
    (ours,) = (each for each in contestants(profile.concurrency, chosen.lines) if each.name == OURS)
    with place_of(profile) as place:
        source = place.log.with_name("in.jsonl")
        with source.open(
            "w"
        ) as file:  # not as one text: the kernel counts the memory of this process for its children too
            file.writelines(lines(chosen.lines))
        for _ in range(chosen.rounds):
            own, batch = measure(ours, chosen.lines, place), run(place, source, chosen.lines, profile.concurrency)
            ratios.append(batch.jobs_per_second / own.jobs_per_second)
            most.append(batch.command_mb)
            print(
                f"{chosen.lines} lines: {batch.seconds:.1f} s, {batch.jobs_per_second:.0f} jobs/s; the worker's own rate "
                f"{own.jobs_per_second:.0f}; the command {batch.command_cpu_seconds:.1f} s of CPU, {batch.command_mb:.0f} MB; "
                f"the worker {batch.worker_mb:.0f} MB",
                flush=True,
            )
        with source.open("w") as file:
            file.writelines(lines(LARGE_LINES, LARGE_BYTES))
        large = run(place, source, LARGE_LINES, profile.concurrency)
        most.append(large.command_mb)
    print(
        f"{LARGE_LINES} lines of {LARGE_BYTES / 1e6:g} MB: {large.seconds:.1f} s; the command {large.command_mb:.0f} MB, "
        f"the worker {large.worker_mb:.0f} MB"
    )
    for good, words in (
        (median(ratios) >= LEAST_RATIO, f"{median(ratios):.2f} x the worker's own rate, at least {LEAST_RATIO:g}"),
        (max(most) <= MOST_MB, f"{max(most):.0f} MB in the command, at most {MOST_MB:g}"),
    ):
        print(f"{'passed' if good else 'FAILED'}  {words}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
