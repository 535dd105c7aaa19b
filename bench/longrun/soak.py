"""`make bench-soak`: jobs at a steady rate through one worker, for half an hour: nothing grows, nothing is lost.

    python -m bench.longrun.soak [--minutes 30] [--rate 50] [--keep 300]

Results are kept for `--keep` seconds and the ledger for 2,000 rows, so that what leaves Redis is soon as much as what comes. The
slope of the worker's memory is by least squares over the second half. The first `--keep` seconds and a minute do not count
for the level of Redis.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import redis

from bench.footprint import MOST_BYTES, Q, by_key
from bench.idle import cpu_seconds
from bench.longrun.slow_log import SlowLog
from bench.throughput import BIN, bench_place, job, process, usage, wait_until
from ops.simulators.provider import Control
from producer import Producer, keyspace
from producer.connection import connect
from producer.policy import load_policies

MOST_MB_PER_HOUR = 6.0  # of the worker's memory: a month of it would fill a plan of 4 GB
LEVEL = 1.15  # of Redis's keys and memory: at the end against the first minute that counts
LONGEST_MS = 50.0
SETTLE_SECONDS = 60
LONG_MINUTES = 10  # in a shorter run, the slope is that of the start
LEDGER_ROWS = 2000
LATENCY = (0.5, 1.5)
BATCH_SECONDS = 0.1  # between two calls of enqueue_many


@dataclass(frozen=True)
class Minute:
    """What was seen at the end of a minute. `trips`: round trips to Redis so far; `cpu`: seconds of the worker so far."""

    seconds: float
    rss_mb: float
    keys: int
    redis_mb: float
    trips: int
    cpu: float


def slope(minutes: list[Minute]) -> float:
    """MB an hour of the worker's memory, by least squares."""
    hours = [each.seconds / 3600 for each in minutes]
    middle, level = sum(hours) / len(hours), sum(each.rss_mb for each in minutes) / len(minutes)
    spread = sum((hour - middle) ** 2 for hour in hours)
    both = sum((hour - middle) * (each.rss_mb - level) for hour, each in zip(hours, minutes, strict=True))
    return both / spread if spread else 0.0


class Soak:
    """One run: a worker, its server, and what was seen of both."""

    def __init__(self, client: redis.Redis, producer: Producer, pid: int) -> None:
        self._client, self._producer, self._pid = client, producer, pid
        self.sent, self.minutes, self.slow_log = 0, list[Minute](), SlowLog(client)

    def run(self, rate: float, minutes: float) -> None:
        """Hand in jobs at a steady rate, and look at each minute."""
        began = time.monotonic()
        while (now := time.monotonic() - began) < 60 * minutes:
            due = int(now * rate) - self.sent
            receipts = self._producer.enqueue_many(job(self.sent + n) for n in range(due))
            if any(receipt.outcome != "accepted" for receipt in receipts):
                sys.exit("soak: a job was not accepted")
            self.sent += due
            if now >= 60 * (len(self.minutes) + 1):
                self._look(now)
            time.sleep(max(0.0, BATCH_SECONDS - (time.monotonic() - began - now)))
        self._look(time.monotonic() - began)

    def _look(self, seconds: float) -> None:
        info = self._client.info()
        mb, trips = int(info["used_memory"]) / 1e6, int(info["total_reads_processed"])
        found = Minute(seconds, usage(self._pid).rss_mb, self._client.dbsize(), mb, trips, cpu_seconds(self._pid))
        self.slow_log.look()
        done = int(self._client.zcard(keyspace.finished(Q)))
        print(
            f"{seconds / 60:4.0f} min: worker {found.rss_mb:6.1f} MB, Redis {mb:6.1f} MB, {found.keys:,} keys, "
            f"{done:,} finished jobs kept, {self.sent:,} handed in, longest command {self.slow_log.ms:.0f} ms",
            flush=True,
        )
        self.minutes.append(found)


def policies(folder: Path, keep: int) -> dict[str, str]:
    """Policy files that keep little. Returns the environment that names them."""
    place = folder / "policies"
    place.mkdir()
    files = {"jobs": {"job_types": {"default": {"keep_results_seconds": keep}, "batch": {}}}}
    files["history"] = {"ledger": {"rows": LEDGER_ROWS}}
    for name, data in files.items():
        (place / f"{name}.yaml").write_text(json.dumps({"version": 1, **data}))
    return {"POLICIES_DIR": str(place)}


def outcome(client: redis.Redis, control: Control, sent: int) -> dict[str, int]:
    """Jobs without a result, with two results, and with two calls, by what Redis and the provider have counted."""
    results = sum(int(client.hget(name, "successful_job_count") or 0) for name in client.scan_iter("rq:worker:*"))
    calls = control.account("provider")["answers_by_key"]
    return {
        "jobs": sent,
        "lost": sent - results if results < sent else 0,
        "doubled results": max(0, results - sent),
        "called twice": sum(count > 1 for count in calls.values()),
        "never called": sent - len(calls),
        "dead": int(client.zcard(keyspace.failed(Q))),
    }


def judged(soak: Soak, chosen: argparse.Namespace) -> dict[str, bool]:
    """The sentences about what was seen, and whether each is good."""
    half = soak.minutes[len(soak.minutes) // 2 :]
    grows = slope(half)
    counted = [each for each in soak.minutes if each.seconds > chosen.keep + SETTLE_SECONDS]
    first, last = counted[0], counted[-1]
    trips = (last.trips - first.trips) / (last.seconds - first.seconds)
    cpu = 1000 * (last.cpu - first.cpu) / (last.seconds - first.seconds) / chosen.rate
    return {
        f"the worker's memory grows by {grows:+.1f} MB an hour, over the last {len(half)} minutes": (
            grows <= MOST_MB_PER_HOUR or chosen.minutes < LONG_MINUTES
        ),
        f"keys of Redis: {first.keys:,} -> {last.keys:,}": last.keys <= LEVEL * first.keys,
        f"memory of Redis: {first.redis_mb:.1f} -> {last.redis_mb:.1f} MB": last.redis_mb <= LEVEL * first.redis_mb,
        f"the longest command took {soak.slow_log}": soak.slow_log.computed_ms < LONGEST_MS,
        f"{trips:.1f} round trips a second, some {1 / BATCH_SECONDS:.0f} of them by this program; {cpu:.2f} ms CPU a job": True,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=50, help="jobs a second")
    parser.add_argument("--keep", type=int, default=300, help="seconds for which results are kept")
    chosen = parser.parse_args()
    if chosen.keep < 60:
        parser.error("--keep: at least 60 seconds, as in policies/jobs.yaml")
    if 60 * chosen.minutes < chosen.keep + SETTLE_SECONDS + 60:
        parser.error(f"--minutes: at least {(chosen.keep + SETTLE_SECONDS + 60) / 60:.0f}, for a level to be seen")
    with bench_place(LATENCY) as (url, environment, folder), connect(url) as client:
        environment |= policies(folder, chosen.keep)
        control = Control(environment["SIMULATOR"])
        with process([str(BIN / "failover-worker")], environment, folder / "worker.log") as worker:
            wait_until(lambda: client.scard(keyspace.WORKERS) == 1, "the start of failover-worker", 30)
            soak = Soak(client, Producer(client, load_policies(environment)), worker.pid)
            soak.run(chosen.rate, chosen.minutes)
            wait_until(lambda: not client.zcard(keyspace.accepted(Q)), "the end of the jobs")
            found = outcome(client, control, soak.sent)
            kept = by_key(client, [each.decode() for each in client.zrange(keyspace.finished(Q), 0, -1)])
    passed = judged(soak, chosen)
    passed[f"jobs: {json.dumps(found)}"] = not any(number for name, number in found.items() if name != "jobs")
    bytes_kept = sum(kept.values())
    passed[f"a finished job keeps {bytes_kept:.0f} bytes: {json.dumps({k: round(v) for k, v in kept.items()})}"] = (
        bytes_kept <= MOST_BYTES
    )
    for what, good in passed.items():
        print(f"{'passed' if good else 'FAILED'}  {what}")
    sys.exit(not all(passed.values()))


if __name__ == "__main__":
    main()
