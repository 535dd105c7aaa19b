"""`make bench-peers`: the same job, against the same cheap provider, in interleaved rounds.

    python -m bench.peers.compare [--profile jittered] [--rounds 3] [--only NAME ...] [--jobs N]

Each worker has one core to itself; Redis and the provider share another one. The queue is filled before the worker starts. CPU is
that of the worker's processes (user + system, from the kernel) from the first request that reaches the provider until the worker
is quiet after the last one, so imports are not in it; jobs/s is counted at the provider. Redis has its AOF on. Ratios are made
within each round, and then their median is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, cast

import redis

from bench.peers.contestants import ROOT, Contestant, contestants, install
from bench.throughput import TICKS, free_port
from ops.local import embedded
from producer.connection import connect

WORKERS_CORE, OTHERS_CORE = 0, 1
FLOOR, PEER, OURS = "bare aiohttp loop", "taskiq", "failover-worker"
QUIET_SECONDS = 0.6
LONGEST_SECONDS = 120.0


@dataclass(frozen=True)
class Profile:
    """`latency`: the provider's, lowest and highest, in seconds. `chunks`: of a streamed answer; 0: it comes in one piece."""

    concurrency: int
    latency: tuple[float, float]
    jobs: int
    chunks: int = 0


PROFILES = {
    "jittered": Profile(500, (0.5, 1.5), 4000),
    "thousand": Profile(1000, (1.0, 1.0), 6000),
    "zero": Profile(100, (0.0, 0.0), 4000),
    "streams": Profile(100, (0.1, 0.3), 600, chunks=130),
}
STREAMING = (FLOOR, OURS)  # those that take part in a profile with chunks


@dataclass(frozen=True)
class Figures:
    """Of one worker in one round. CPU in milliseconds a job, RSS in MB."""

    cpu: float
    jobs_per_second: float
    rss: float
    redis_cpu: float
    commands: float
    most_in_flight: int


@dataclass(frozen=True)
class Place:
    """Where one profile runs: the environment of every process, and the provider's address."""

    redis_url: str
    provider_url: str
    environment: dict[str, str]
    log: Path

    def provider(self, path: str) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.provider_url}/{path}", timeout=30) as answer:  # noqa: S310 - it is ours
            return dict(json.loads(answer.read()))


@contextlib.contextmanager
def place_of(profile: Profile) -> Iterator[Place]:
    """Redis and a provider on their core."""
    os.sched_setaffinity(0, {OTHERS_CORE})
    low, high = profile.latency
    command = [sys.executable, "-m", "bench.peers.provider", str(low), str(high), str(profile.chunks)]
    with tempfile.TemporaryDirectory(prefix="failover-peers-") as made:
        folder, port = Path(made), free_port()
        (folder / "valkey").mkdir()
        server = embedded.start_server(folder / "valkey", {"port": str(port)})
        provider = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        try:
            url = f"http://127.0.0.1:{int(cast(IO[bytes], provider.stdout).readline())}"
            route = {"provider": "openai", "model": "gpt-4o-mini", "baseUrl": f"{url}/v1", "apiKeyEnv": ""}
            if profile.chunks:
                route |= {"streamTimeoutSeconds": 30}
            (folder / "routes.json").write_text(json.dumps({"hot": [route]}))
            redis_url = f"redis://127.0.0.1:{port}/0"
            environment = {
                **os.environ,
                "REDIS_URL": redis_url,
                "PROVIDER_URL": url,
                "CONCURRENCY": str(profile.concurrency),
                "STREAMED": "1" if profile.chunks else "",
                "ROUTES_FILE": str(folder / "routes.json"),
                "PYTHONPATH": str(ROOT),
            }
            yield Place(redis_url, url, environment, folder / "worker.log")
        finally:
            provider.terminate()
            server.terminate()
            provider.wait()
            server.wait()


def measure(contestant: Contestant, jobs: int, place: Place) -> Figures:
    """One worker, from its start to the end of its last job."""
    jobs = min(jobs, contestant.least or jobs)
    with connect(place.redis_url) as client, place.log.open("wb") as log:
        client.flushall()
        place.provider("reset")
        if contestant.enqueue:
            subprocess.run(
                [*contestant.enqueue, str(jobs)], env=place.environment, cwd=ROOT, stdout=log, stderr=log, check=True
            )
        command = [word.replace("{redis}", place.redis_url) for word in contestant.work]
        worker = subprocess.Popen(
            command,
            env=place.environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, {WORKERS_CORE}),
        )
        try:
            _wait(lambda: place.provider("stats")["first"] > 0, contestant, worker, place)
            cpu, redis_cpu, commands = cpu_seconds(worker.pid), *_redis(client)
            _wait(lambda: place.provider("stats")["answered"] >= jobs, contestant, worker, place)
            until_quiet(worker.pid)
            used = cpu_seconds(worker.pid) - cpu
            redis_cpu, commands = (
                now - before for now, before in zip(_redis(client), (redis_cpu, commands), strict=True)
            )
            counted, rss = place.provider("stats"), sum(rss_mb(pid) for pid in tree(worker.pid))
        finally:
            worker.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(5)
            worker.kill()
            worker.wait()
    rate = jobs / (counted["last"] - counted["first"])
    most = int(counted["most"])
    return Figures(used * 1000 / jobs, rate, rss, redis_cpu * 1000 / jobs, commands / jobs, most)


def _wait(true: Callable[[], bool], contestant: Contestant, worker: subprocess.Popen[bytes], place: Place) -> None:
    ends = time.monotonic() + LONGEST_SECONDS
    while not true():
        if worker.poll() is not None or time.monotonic() > ends:
            sys.stderr.write(place.log.read_text(errors="replace")[-2000:])
            raise SystemExit(f"bench: {contestant.name} did not do its jobs")
        time.sleep(0.02)


def until_quiet(*pids: int) -> None:
    """Until these processes together take less than a twentieth of their core."""
    before, ends = sum(map(cpu_seconds, pids)), time.monotonic() + 20
    while time.monotonic() < ends:
        time.sleep(QUIET_SECONDS)
        now = sum(map(cpu_seconds, pids))
        if now - before < QUIET_SECONDS / 20:
            return
        before = now


def tree(pid: int) -> list[int]:
    """The process and all that it has started."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """Seconds of user and system, of the process, its living and its ended children."""
    ticks = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS


def rss_mb(pid: int) -> float:
    """Of one process, now; 0 once it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    return 0.0


def _redis(client: redis.Redis) -> tuple[float, float]:
    """Redis's own CPU in seconds, and the commands that it has executed."""
    told = client.info()
    return told["used_cpu_user"] + told["used_cpu_sys"], told["total_commands_processed"]


def table(rounds: list[dict[str, Figures]]) -> str:
    """Medians, with the least and the most of the rounds."""

    def spread(values: list[float], digits: int) -> str:
        if not values:
            return "-"
        return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"

    def ratio(name: str, to: str, of: str) -> list[float]:
        both = [each for each in rounds if name in each and to in each]
        return [getattr(each[name], of) / getattr(each[to], of) for each in both]

    names = list(rounds[0])
    ratios = (f"x {PEER}", "x bare loop")
    columns = ("", "CPU ms/job", *ratios, "jobs/s", *ratios, "RSS MB", "Redis ms", "commands", "in flight")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name in names:
        of = [each[name] for each in rounds]
        cells = [
            name,
            spread([each.cpu for each in of], 2),
            spread(ratio(name, PEER, "cpu"), 2),
            spread(ratio(name, FLOOR, "cpu"), 2),
            spread([each.jobs_per_second for each in of], 0),
            spread(ratio(name, PEER, "jobs_per_second"), 2),
            spread(ratio(name, FLOOR, "jobs_per_second"), 2),
            f"{median(each.rss for each in of):.0f}",
            f"{median(each.redis_cpu for each in of):.3f}",
            f"{median(each.commands for each in of):.0f}",
            f"{median(each.most_in_flight for each in of):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--profile", choices=[*PROFILES], nargs="+", default=[*PROFILES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="names of workers")
    parser.add_argument("--jobs", type=int)
    chosen = parser.parse_args()
    install()
    for name in chosen.profile:
        profile = PROFILES[name]
        jobs = chosen.jobs or profile.jobs
        everyone = contestants(profile.concurrency, jobs)
        only = chosen.only or (STREAMING if profile.chunks else None)
        taking_part = [each for each in everyone if not only or each.name in only]
        rounds = list[dict[str, Figures]]()
        with place_of(profile) as place:
            for _ in range(chosen.rounds):
                rounds.append({each.name: measure(each, jobs, place) for each in taking_part})
        low, high = profile.latency
        print(
            f"\n{name}: {jobs} jobs, {profile.concurrency} in flight, {low:g}-{high:g} s of latency, "
            f"{f'{profile.chunks} chunks, ' if profile.chunks else ''}{chosen.rounds} rounds\n"
        )
        print(table(rounds), flush=True)


if __name__ == "__main__":
    main()
