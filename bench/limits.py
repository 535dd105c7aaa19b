"""`make bench-limits`: our own limits, the link's and the platform's, met by healthy jobs: none is dead, none is lost.

    python -m bench.limits [--row NAME]

Rows: `slow link` (200 jobs of 150 kB over 1 MB/s), `memory` (100 jobs with prompts and answers of 3 MB in 512 MB, as a
cgroup where this user may make one, else as an address-space limit), `killer` (one job that kills its worker, among 33 small
ones), `descriptors` (500 slots, 256 file descriptors).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from bench.throughput import BIN, bench_place
from ops.simulators.provider import Control
from producer import LLMJob, Producer, keyspace
from producer.connection import connect
from producer.policy import load_policies
from tests.support.proxy import Proxy

Q = "ai-tasks"
CGROUPS = Path("/sys/fs/cgroup/memory")
LIMIT_BYTES = 512 * 1024 * 1024
LINK = 1_000_000  # bytes a second
PASSED = "passed"


def letters(size: int) -> str:
    """Text that does not compress well."""
    return random.Random(size).randbytes(size // 2).hex()


def jobs_of(size: int, count: int) -> list[LLMJob]:
    text = letters(size)
    return [LLMJob(body={"messages": [{"role": "user", "content": f"{n} {text}"}]}) for n in range(count)]


@contextlib.contextmanager
def worker(
    environment: dict[str, str], log: Path, *options: str, enter: Callable[[], None] | None = None
) -> Iterator[Any]:
    """Workers, each started again when it is gone, as a platform does. `enter` runs in each before it starts."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with log.open("ab") as sink:
            command = [str(BIN / "failover-worker"), *options]
            started.append(subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, preexec_fn=enter))

    def watch() -> subprocess.Popen[bytes]:
        if not started or started[-1].poll() is not None:
            start()
        return started[-1]

    try:
        yield watch
    finally:
        started[-1].terminate()
        started[-1].wait()


def ended(client: redis.Redis) -> int:
    return int(client.zcard(keyspace.finished(Q)) + client.zcard(keyspace.failed(Q)))


def outcome(client: redis.Redis, producer: Producer, ids: list[str], calls: int) -> dict[str, Any]:
    results = [result for n in range(0, len(ids), 10) for result in producer.fetch_many(ids[n : n + 10])]
    states = Counter(f"{r.status}{f' {r.dead_reason}' if r.dead_reason else ''}" if r else "lost" for r in results)
    return {"jobs": len(ids), **states, "calls": calls}


def peak(process: subprocess.Popen[bytes], field: str) -> int:
    """MB of VmHWM (most resident memory) or VmSize."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) // 1024
    return 0


def run(
    wanted: list[LLMJob],
    *options: str,
    enter: Callable[[], None] | None = None,
    link: float | None = None,
    latency: tuple[float, float] = (0.05, 0.1),
    seconds: float = 300,
    killer: bool = False,
) -> dict[str, Any]:
    with bench_place(latency) as (url, environment, folder), connect(url) as client:
        producer, provider = Producer(client, load_policies({})), Control(environment["SIMULATOR"])
        provider.behave("provider", latency=latency)  # its answers are as long as the prompts
        ids = [
            receipt.job_id
            for part in range(0, len(wanted), 10)
            for receipt in producer.enqueue_many(wanted[part : part + 10])
        ]
        proxy = Proxy(Path(url.removeprefix("unix://")), bytes_per_second=link) if link else None
        began, most, workers = time.monotonic(), 0, set[int]()
        killed: set[bytes | None] = {None}
        if proxy:
            environment = {**environment, "REDIS_URL": proxy.url}
        with worker(environment, folder / "worker.log", "--concurrency", "100", *options, enter=enter) as watch:
            while ended(client) < len(ids) and time.monotonic() < began + seconds:
                process = watch()
                workers.add(process.pid)
                most = max(most, peak(process, "VmHWM"))
                if killer and (lease := runs(client, ids[0])) not in killed:
                    killed.add(lease)
                    process.kill()
                    process.wait()
                time.sleep(0.05)
            took = time.monotonic() - began
            calls = int(provider.account("provider")["asked"])
        if proxy:
            proxy.close()
        found = outcome(client, producer, ids, calls)
        return {**found, "seconds": round(took, 1), "workers": len(workers), "peak RSS, MB": most}


def runs(client: redis.Redis, job_id: str) -> bytes | None:
    """The lease of the job, if it runs: a suspect only once its worker has said so."""
    lease, suspect, begun = client.hmget(keyspace.job(job_id), "lease", "suspect", "begun")
    return lease if lease and (not suspect or (begun or b"").startswith(lease)) else None


def slow_link() -> tuple[dict[str, Any], bool]:
    found = run(jobs_of(150_000, 200), link=LINK)
    return found, found.get("done") == 200 and found["workers"] == 1


def memory() -> tuple[dict[str, Any], bool]:
    group = CGROUPS / f"failover-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
        kind = "cgroup"

        def enter() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        kind = "address space"

        def enter() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (2 * LIMIT_BYTES, 2 * LIMIT_BYTES))

    try:
        found = run(jobs_of(3_000_000, 100), enter=enter)
    finally:
        if kind == "cgroup":
            with contextlib.suppress(OSError):
                group.rmdir()
    good = found.get("done") == 100 and found["workers"] == 1 and found["peak RSS, MB"] < LIMIT_BYTES >> 20
    return {**found, "limit": f"512 MB, {kind}"}, good


def killer() -> tuple[dict[str, Any], bool]:
    found = run(jobs_of(200, 34), latency=(0.5, 0.8), killer=True)
    return found, found.get("done") == 33 and found.get("dead crashed") == 1


def descriptors() -> tuple[dict[str, Any], bool]:
    def enter() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    found = run(jobs_of(200, 1500), "--concurrency", "500", enter=enter, latency=(0.2, 0.4))
    return found, found.get("done") == 1500 and found["calls"] == 1500


ROWS = {"slow link": slow_link, "memory": memory, "killer": killer, "descriptors": descriptors}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--row", choices=ROWS, action="append")
    passed = True
    for name in parser.parse_args().row or ROWS:
        found, good = ROWS[name]()
        passed = passed and good
        print(f"{name:12} {'passed' if good else 'FAILED'}  {json.dumps(found)}", flush=True)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
