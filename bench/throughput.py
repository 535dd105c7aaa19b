"""`make bench`: what one worker process costs, next to stock `rq worker` on the same job in the same run.

    python -m bench.throughput [--jobs 2000] [--concurrency 500] [--latency 0.5 1.5] [--stock-jobs 10] [--chunks 130]

CPU is the worker process's own (user + system, from the kernel's accounting), counted from the first job to the last,
so that imports are not divided among the jobs; they are printed beside it. The provider is the simulator in a process
of its own, the server an embedded Valkey with its AOF on; the whole path is real HTTP and real Redis.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from rq import Queue

from bench.stock_job import complete
from ops.local import embedded
from ops.simulators.provider import Control
from producer import LLMJob, Producer
from producer.connection import connect
from producer.policy import load_policies

BIN = Path(sys.executable).parent
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    cpu_seconds: float
    rss_mb: float


def usage(pid: int) -> Usage:
    """CPU of a live process and of its ended children; its resident memory."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return Usage(ticks / TICKS, int(fields[21]) * resource.getpagesize() / 1e6)


@contextlib.contextmanager
def process(
    command: list[str], environment: dict[str, str], log: Path, core: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the end of the block. `core`: the only one that it may use."""
    cores = os.sched_getaffinity(0) if core is None else {core}
    with log.open("wb") as sink:
        running = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=sink,
            stderr=sink,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(true: Callable[[], bool], what: str, seconds: float = 600.0) -> None:
    give_up = time.monotonic() + seconds
    while not true():
        if time.monotonic() > give_up:
            raise SystemExit(f"bench: {what} did not happen within {seconds:.0f} s")
        time.sleep(0.02)


def bench_ours(url: str, environment: dict[str, str], folder: Path, jobs: int, concurrency: int) -> dict[str, float]:
    command = [str(BIN / "failover-worker"), "--concurrency", str(concurrency)]
    with connect(url) as client, process(command, environment, folder / "worker.log") as worker:
        wait_until(lambda: client.scard("rq:workers") == 1, "the start of failover-worker")
        start_up = usage(worker.pid)
        producer = Producer(client, load_policies({}))
        began = time.monotonic()
        producer.enqueue_many(job(number) for number in range(jobs))
        enqueued = time.monotonic()
        wait_until(lambda: client.zcard("rq:finished:ai-tasks") == jobs, "the end of the batch")
        took = time.monotonic() - began
        used = usage(worker.pid)
        most = int(Control(environment["SIMULATOR"]).account("provider")["most_in_flight"])
    return {
        "jobs": jobs,
        "jobs_per_second": jobs / took,
        "enqueued_per_second": jobs / (enqueued - began),
        "cpu_ms_per_job": (used.cpu_seconds - start_up.cpu_seconds) * 1000 / jobs,
        "start_up_cpu_ms": start_up.cpu_seconds * 1000,
        "rss_mb": used.rss_mb,
        "most_in_flight": most,
    }


def bench_stock(url: str, environment: dict[str, str], folder: Path, jobs: int) -> dict[str, float]:
    command = [str(BIN / "rq"), "worker", "stock", "--url", url]
    with connect(url) as client, process(command, environment, folder / "stock.log") as worker:
        wait_until(lambda: client.scard("rq:workers:stock") == 1, "the start of rq worker")
        start_up = usage(worker.pid)
        queue = Queue("stock", connection=client)
        began = time.monotonic()
        for number in range(jobs):
            queue.enqueue(complete, environment["SIMULATOR"] + "/provider/v1", job(number).body)
        wait_until(lambda: client.zcard("rq:finished:stock") == jobs, "the end of the stock jobs")
        took = time.monotonic() - began
        used = usage(worker.pid)
    return {
        "jobs": jobs,
        "jobs_per_second": jobs / took,
        "cpu_ms_per_job": (used.cpu_seconds - start_up.cpu_seconds) * 1000 / jobs,
        "start_up_cpu_ms": start_up.cpu_seconds * 1000,
        "rss_mb": used.rss_mb,
        "most_in_flight": 1,
    }


def job(number: int) -> LLMJob:
    content = f"Summarise call note {number}: " + "the client asked for a shorter report and an earlier call. " * 6
    return LLMJob(job_type="batch", body={"messages": [{"role": "user", "content": content}], "max_tokens": 200})


@contextlib.contextmanager
def simulator_process() -> Iterator[Control]:
    """A simulator in a process of its own, so that its CPU is nobody else's."""
    command = [sys.executable, "-m", "ops.simulator", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield Control(cast(IO[bytes], process.stdout).readline().decode().strip())
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def bench_place(latency: tuple[float, float], chunks: int = 0) -> Iterator[tuple[str, dict[str, str], Path]]:
    """A Valkey, a simulator in its own process, and a routing map of one route to it."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="failover-bench-")))
        control = stack.enter_context(simulator_process())
        control.behave("provider", latency=latency, text="x" * 400, chunks=max(1, chunks))
        base_url = control.base_url("provider")
        route = {"provider": "openai", "model": "gpt-4o-mini", "baseUrl": base_url, "apiKeyEnv": ""}
        if chunks:
            route["streamTimeoutSeconds"] = 30
        (folder / "routes.json").write_text(json.dumps({"hot": [route]}))
        url = stack.enter_context(embedded.running(folder / "valkey"))
        yield url, {"REDIS_URL": url, "ROUTES_FILE": str(folder / "routes.json"), "SIMULATOR": control.url}, folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--latency", type=float, nargs=2, default=(0.5, 1.5), metavar=("LOW", "HIGH"))
    parser.add_argument(
        "--stock-jobs", type=int, default=10, help="stock `rq worker` does one at a time; 0 leaves it out"
    )
    parser.add_argument("--chunks", type=int, default=0, help="stream answers of so many chunks; 0 does not stream")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with bench_place(tuple(chosen.latency), chosen.chunks) as (url, environment, folder):
        rows = {"failover-worker": bench_ours(url, environment, folder, chosen.jobs, chosen.concurrency)}
        if chosen.stock_jobs:
            rows["rq worker"] = bench_stock(url, environment, folder, chosen.stock_jobs)
    if chosen.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"one process each, {chosen.latency[0]}-{chosen.latency[1]} s of provider latency\n")
    print(
        f"{'':16} {'jobs':>6} {'jobs/s':>8} {'CPU ms/job':>11} {'RSS MB':>7} {'in flight':>10} {'start-up CPU ms':>16}"
    )
    for name, row in rows.items():
        print(
            f"{name:16} {row['jobs']:6.0f} {row['jobs_per_second']:8.1f} {row['cpu_ms_per_job']:11.2f} "
            f"{row['rss_mb']:7.0f} {row['most_in_flight']:10.0f} {row['start_up_cpu_ms']:16.0f}"
        )


if __name__ == "__main__":
    main()
