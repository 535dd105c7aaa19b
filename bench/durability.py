"""`make bench-durability`: how long recovery takes, and what a hundred thousand dead letters or a long queue cost.

python -m bench.durability [--dead 100000] [--deep 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import redis

from bench.throughput import BIN, bench_place, job, process, wait_until
from ops.simulators.provider import Control
from producer import JobResult, Producer, keyspace
from producer.connection import connect
from producer.job import DeadReason, JobStatus
from producer.policy import load_policies
from producer.scripts import ask
from worker.queue import dead_letters as letters
from worker.queue import transitions
from worker.queue.claim import Claim
from worker.queue.dead_letters import Filters
from worker.queue.outcomes import Dead, Done

Q = "ai-tasks"


def recovery(url: str, environment: dict[str, str], folder: Path) -> dict[str, float]:
    """kill -9 of the only worker with 100 running jobs; seconds until a new one runs them all."""
    control = Control(environment["SIMULATOR"])
    control.behave("provider", fault="hang")
    command = [str(BIN / "failover-worker"), "--concurrency", "100", "--drain-seconds", "0"]
    with connect(url) as client:
        producer = Producer(client, load_policies({}))
        with process(command, environment, folder / "first.log") as first:
            producer.enqueue_many(job(number) for number in range(100))
            wait_until(lambda: control.account("provider")["in_flight"] == 100, "100 jobs run")
            first.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            first.wait()
            wait_until(lambda: control.account("provider")["in_flight"] == 0, "their calls break off")
            with process(command, environment, folder / "second.log"):
                wait_until(lambda: control.account("provider")["in_flight"] == 100, "100 jobs run again")
                took = time.monotonic() - killed
    control.behave("provider")
    return {"seconds until all 100 run again": took}


def drain(url: str, environment: dict[str, str], folder: Path) -> dict[str, float]:
    """Five SIGTERMs during calls that would take 120 s; seconds until the worker has ended."""
    control = Control(environment["SIMULATOR"])
    control.behave("provider", latency=(120.0, 120.0))
    command = [str(BIN / "failover-worker"), "--concurrency", "50", "--drain-seconds", "5"]
    with connect(url) as client:
        client.flushall()
        job_ids = [r.job_id for r in Producer(client, load_policies({})).enqueue_many(job(n) for n in range(50))]
        with process(command, environment, folder / "drain.log") as worker:
            wait_until(lambda: control.account("provider")["in_flight"] == 50, "50 calls run")
            began = time.monotonic()
            for _ in range(5):
                worker.send_signal(signal.SIGTERM)
            worker.wait()
            took = time.monotonic() - began
        queue = [name.decode() for name in client.lrange(keyspace.queue(Q), 0, -1)]
        counted = ask(client, [("HMGET", keyspace.job(job_id), "attempts", "executions") for job_id in job_ids])
        charged = sum(int(value or 0) for counts in counted for value in counts)
        client.flushall()
    control.behave("provider")
    return {
        "drain budget, seconds": 5,
        "seconds until it ended": took,
        "exit code": worker.returncode,
        "released in the order accepted (1 = yes)": float(queue == job_ids),
        "attempts charged": charged,
    }


def dead_letters(url: str, environment: dict[str, str], count: int) -> dict[str, float]:
    """A dead-letter queue of `count`: the commands' time beyond start-up, and a requeue of all."""
    with connect(url, reply_timeout=30) as client:
        client.flushall()
        producer = Producer(client, load_policies({}))
        producer.enqueue_many(job(number) for number in range(count))
        for batch in claims(client, count):
            buried = Dead(DeadReason.EXHAUSTED, "all providers were down", [], 7776000)
            ask(client, [transitions.settle(held, buried, worker_name="w", attempts=3, run_ms=9) for held in batch])
        began = time.monotonic()
        found = letters.stats(client, Q)
        stats_took = time.monotonic() - began
        began = time.monotonic()
        page = letters.listed(client, Q, Filters(tenant="default", reason="exhausted"), 50)
        list_took = time.monotonic() - began
        if (found.total, len(page)) != (count, 50):
            raise SystemExit(f"bench: {found.total} dead letters, a page of {len(page)}")
        start_up = command_time(["failover", "dlq", "stats", "--help"], environment)
        stats_command = command_time(["failover", "dlq", "stats"], environment)
        list_command = command_time(["failover", "dlq", "list"], environment)
        began = time.monotonic()
        subprocess.run(
            [str(BIN / "failover"), "dlq", "requeue", "--all"],
            env={**os.environ, **environment}, check=True, capture_output=True,
        )  # fmt: skip
        requeue_took = time.monotonic() - began
        queued = int(client.llen(keyspace.queue(Q)))
        client.flushall()
    return {
        "dead letters": count,
        "stats, ms": stats_took * 1000,
        "one page of list, ms": list_took * 1000,
        "`dlq stats` beyond start-up, ms": (stats_command - start_up) * 1000,
        "`dlq list` beyond start-up, ms": (list_command - start_up) * 1000,
        "requeue of all, s": requeue_took,
        "queued after it": queued,
    }


def command_time(command: list[str], environment: dict[str, str]) -> float:
    """The median of five runs, in seconds."""
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run(
            [str(BIN / command[0]), *command[1:]], env={**os.environ, **environment}, check=True, capture_output=True
        )
        times.append(time.monotonic() - began)
    return statistics.median(times)


def depth(url: str, shallow: int, deep: int) -> dict[str, float]:
    """Microseconds of Redis time for the claim and the settle of a job, at two depths of the queue, in turn."""
    with connect(url, reply_timeout=60) as client:
        client.flushall()
        costs: dict[int, list[float]] = {shallow: [], deep: []}
        fill(client, shallow)
        for level in (shallow, deep):
            fill(client, level)
            for _ in range(5):
                costs[level].append(claim_and_settle(client, 2000))
                fill(client, level)
        client.flushall()
    low, high = (statistics.median(costs[level]) for level in (shallow, deep))
    return {f"us a job at {shallow}": low, f"us a job at {deep}": high, "ratio": high / low}


def fill(client: redis.Redis, level: int) -> None:
    producer = Producer(client, load_policies({}))
    missing = max(level, 2000) - int(client.llen(keyspace.queue(Q)))
    for start in range(0, missing, 20_000):
        producer.enqueue_many(job(number) for number in range(min(20_000, missing - start)))


def claim_and_settle(client: redis.Redis, count: int) -> float:
    client.config_resetstat()
    for batch in claims(client, count):
        calls = []
        for held in batch:
            result = JobResult(job_id=held.job_id, status=JobStatus.DONE, completion={"text": "x" * 400})
            calls.append(transitions.settle(held, Done(result, 3600), worker_name="w", attempts=1, run_ms=9))
        ask(client, calls)
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec"]) / count


def claims(client: redis.Redis, count: int) -> Iterator[list[Claim]]:
    for start in range(0, count, 200):
        call = transitions.claim(uuid4().hex, min(200, count - start), "w", [Q])
        yield list(transitions.claimed(ask(client, [call])[0])[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--dead", type=int, default=100_000)
    parser.add_argument("--deep", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("recovery", "drain", "dead", "depth"))
    chosen = parser.parse_args()
    with bench_place((0.0, 0.0)) as (url, environment, folder):
        parts = {
            "recovery": lambda: recovery(url, environment, folder),
            "drain": lambda: drain(url, environment, folder),
            "dead": lambda: dead_letters(url, environment, chosen.dead),
            "depth": lambda: depth(url, 1000, chosen.deep),
        }
        for name, part in parts.items():
            if chosen.only in (None, name):
                print(name, json.dumps({key: round(value, 2) for key, value in part().items()}, indent=2), flush=True)


if __name__ == "__main__":
    main()
