"""`make chaos`: many jobs under random kills, and three accounts of what became of them.

    python -m bench.chaos [--jobs 3000] [--kills 22] [--stops 6] [--terms 6] [--redis-kills 6] [--seed N]

Worker processes are killed (SIGKILL), stopped for longer than a lease (SIGSTOP), told to stop (SIGTERM) and replaced;
Redis (AOF, fsync always) is killed and started again on its data. Each worker has a route to an upstream of its own,
so the simulator knows how many calls were in flight when it was hit. Passes (exit 0) when no job is lost, none has two
results, and no more calls were made beyond one a job than were in flight at the hits.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.exceptions import RedisError

from bench.throughput import BIN, job, simulator_process
from ops.local import embedded
from ops.simulators import provider
from producer import Producer, keyspace
from producer.connection import connect
from producer.exchange import Receipt
from producer.policy import load_policies
from producer.scripts import ask
from worker.queue.transitions import LEASE_SECONDS

LATENCY = (0.5, 2.0)
SLOTS = 20
WORKERS = 3
SECONDS_BETWEEN = 2.5
STOPPED_SECONDS = LEASE_SECONDS + 4


@dataclass
class Worker:
    process: subprocess.Popen[bytes]
    upstream: str
    log: Path
    wakes_at: float | None = None  # stopped until then


@dataclass
class Chaos:
    """The place of one run, and what was done in it."""

    folder: Path
    providers: provider.Control
    chance: random.Random
    url: str = ""
    server: subprocess.Popen[bytes] | None = None
    workers: list[Worker] = field(default_factory=list)
    upstreams: list[str] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    in_flight_at_hits: int = 0
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def start_redis(self) -> None:
        data = self.folder / "valkey"
        data.mkdir(exist_ok=True)
        self.server = embedded.start_server(data, {"appendfsync": "always"})
        self.url = f"unix://{embedded.socket_path(data)}"

    def stop_redis(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()

    def start_worker(self) -> None:
        name = f"w{next(self._numbers)}"
        self.providers.behave(name, latency=LATENCY)
        route = {"provider": name, "model": "m", "baseUrl": self.providers.base_url(name), "apiKeyEnv": ""}
        routes = self.folder / f"{name}.json"
        routes.write_text(json.dumps({"hot": [route]}))
        log = self.folder / f"{name}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [str(BIN / "failover-worker"), "--concurrency", str(SLOTS), "--drain-seconds", "1"],
                env={**os.environ, "REDIS_URL": self.url, "ROUTES_FILE": str(routes)},
                stdout=sink,
                stderr=sink,
            )
        self.workers.append(Worker(process, name, log))
        self.upstreams.append(name)
        self.logs.append(log)

    def hit(self, kind: str) -> None:
        """One blow; the calls in flight at a worker that is killed or stopped may be made again."""
        self.hits[kind] += 1
        if kind == "redis kill":
            self.stop_redis()
            self.start_redis()
            return
        awake = [worker for worker in self.workers if worker.wakes_at is None]
        worker = self.chance.choice(awake)
        if kind == "stop":
            worker.process.send_signal(signal.SIGSTOP)
            self.in_flight_at_hits += int(self.providers.account(worker.upstream)["in_flight"])
            worker.wakes_at = time.monotonic() + STOPPED_SECONDS
            self.start_worker()
            return
        if kind == "kill":
            worker.process.send_signal(signal.SIGSTOP)  # so that the count is that of the kill
            self.in_flight_at_hits += int(self.providers.account(worker.upstream)["in_flight"])
            worker.process.kill()
        else:
            worker.process.terminate()  # it gives back what does not end in its drain, and breaks those calls off
            self.in_flight_at_hits += int(self.providers.account(worker.upstream)["in_flight"])
        self.workers.remove(worker)
        self.start_worker()

    def wake(self) -> None:
        """Stopped workers whose time has come find out that their leases are gone; one that was an extra ends."""
        for worker in list(self.workers):
            if worker.wakes_at is not None and time.monotonic() > worker.wakes_at:
                worker.process.send_signal(signal.SIGCONT)
                worker.wakes_at = None
                worker.process.terminate()
                self.workers.remove(worker)

    def close(self) -> None:
        for worker in self.workers:
            worker.process.send_signal(signal.SIGCONT)
            worker.process.kill()
            worker.process.wait()
        self.stop_redis()


def run(chaos: Chaos, blows: list[str], jobs: int, seconds: float) -> dict[str, object]:
    chaos.start_redis()
    for _ in range(WORKERS):
        chaos.start_worker()
    receipts: list[Receipt] = []
    with connect(chaos.url) as client:
        producer = Producer(client, load_policies({}))
        receipts = producer.enqueue_many(job(number) for number in range(jobs))
    job_ids = [receipt.job_id for receipt in receipts]
    began = time.monotonic()
    next_blow = began + SECONDS_BETWEEN
    while True:
        chaos.wake()
        if blows and time.monotonic() >= next_blow:
            chaos.hit(blows.pop())
            next_blow = time.monotonic() + SECONDS_BETWEEN
        left = unfinished(chaos.url, job_ids)
        asleep = any(worker.wakes_at is not None for worker in chaos.workers)
        if left == 0 and not blows and not asleep:
            break
        if time.monotonic() - began > seconds:
            print(f"chaos: {left} jobs unfinished after {seconds:.0f} s", file=sys.stderr)
            break
        time.sleep(0.05)
    return report(chaos, job_ids, time.monotonic() - began)


def unfinished(url: str, job_ids: list[str]) -> int:
    """Jobs that have not ended; all of them while Redis is away."""
    with connect(url) as client:
        try:
            return int(client.zcard(keyspace.accepted("ai-tasks")))
        except RedisError:
            return len(job_ids)


def report(chaos: Chaos, job_ids: list[str], seconds: float) -> dict[str, object]:
    with connect(chaos.url) as client:
        statuses = Counter(status_of(client, job_ids))
        reasons = ask(client, [("HGET", keyspace.job(job_id), "dead_reason") for job_id in job_ids])
        results = ask(client, [("XLEN", keyspace.results(job_id)) for job_id in job_ids])
    accounts = [chaos.providers.account(name) for name in chaos.upstreams]
    answers: Counter[str] = Counter()
    for account in accounts:
        answers.update(account["answers_by_key"])
    asked = sum(account["asked"] for account in accounts)
    fenced = sum(log.read_text().count('"event": "fenced"') for log in chaos.logs)
    ended = statuses["finished"] + statuses["failed"]
    return {
        "jobs": len(job_ids),
        "hits": dict(chaos.hits),
        "done": statuses["finished"],
        "dead by reason": dict(Counter(reason.decode() for reason in reasons if reason)),
        "lost": len(job_ids) - ended,
        "double results": sum(count > 1 for count in results),
        "fenced": fenced,
        "calls": asked,
        "extra calls": asked - len(job_ids),
        "in flight at the hits": chaos.in_flight_at_hits,
        "answers paid twice": sum(count - 1 for count in answers.values()),
        "seconds": round(seconds, 1),
    }


def status_of(client: redis.Redis, job_ids: list[str]) -> list[str]:
    replies = ask(client, [("HGET", keyspace.job(job_id), "status") for job_id in job_ids])
    return [reply.decode() if reply else "gone" for reply in replies]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=3000)
    for name, count in (("kills", 22), ("stops", 6), ("terms", 6), ("redis-kills", 6)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=280)
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    blows = ["kill"] * chosen.kills + ["stop"] * chosen.stops + ["term"] * chosen.terms
    blows += ["redis kill"] * chosen.redis_kills
    chance.shuffle(blows)
    print(f"chaos: {chosen.jobs} jobs, {len(blows)} blows, seed {chosen.seed}", flush=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="failover-chaos-")))
        chaos = Chaos(folder, stack.enter_context(simulator_process()), chance)
        stack.callback(chaos.close)
        found = run(chaos, blows, chosen.jobs, chosen.seconds)
    for name, value in found.items():
        print(f"{name:28} {value}")
    extra, allowed = found["extra calls"], found["in flight at the hits"]
    only_crashed = set(dict(found["dead by reason"])) <= {"crashed"}  # type: ignore[call-overload]
    passed = only_crashed and found["lost"] == found["double results"] == 0 and int(str(extra)) <= int(str(allowed))
    print("passed" if passed else "FAILED")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
