"""`make bench-footprint`: how many bytes of Redis a finished job keeps, by key, until its results are too old.

    python -m bench.footprint [--jobs 200] [--answer 1000]

The answer is the provider's body, of `--answer` bytes; once with English text, once with random letters. Rows of the ledger
are not counted (`make bench-money`).
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
from typing import Any

import redis

from bench.throughput import BIN, bench_place, process, wait_until
from ops.simulators.provider import Control
from producer import LLMJob, Producer, keyspace
from producer.connection import connect
from producer.policy import load_policies

Q = "ai-tasks"
MOST_BYTES = 2500  # of a job with an answer of 1,000 bytes
SHARED = (keyspace.finished(Q), keyspace.accepted(Q), keyspace.promised(Q), keyspace.leases(Q), keyspace.wip(Q))
NOTE = (
    "The client asked for a shorter report and an earlier call, because their team has moved. Costs of the first quarter were "
    "higher than planned, so we agreed to send a new offer with two options by Friday; a person in {} calls back about {}. "
)


def english(size: int) -> str:
    places = ("Lisbon", "Porto", "Madrid", "Rome")
    return "".join(NOTE.format(places[n % 4], 1000 + 37 * n) for n in range(1 + size // 200))[:size]


def letters(size: int) -> str:
    return base64.b64encode(random.Random(size).randbytes(size)).decode()[:size]


def by_key(client: redis.Redis, ids: list[str]) -> dict[str, float]:
    """Bytes of the ended jobs `ids` by kind of key, each divided by the number of jobs."""
    found = {"rq:job": 0.0, "rq:results": 0.0}
    for job_id in ids:
        for kind, key in (("rq:job", keyspace.job(job_id)), ("rq:results", keyspace.results(job_id))):
            found[kind] += int(client.memory_usage(key, samples=0) or 0)
    records = client.keys("failover:idempotency:*")
    found["failover:idempotency"] = sum(int(client.memory_usage(key) or 0) for key in records)
    for key in SHARED:
        found[key] = int(client.memory_usage(key, samples=0) or 0)
    return {kind: total / len(ids) for kind, total in found.items() if total}


def measured(text: str, jobs: int) -> dict[str, Any]:
    with bench_place((0.01, 0.01)) as (url, environment, folder), connect(url) as client:
        Control(environment["SIMULATOR"]).behave("provider", latency=(0.01, 0.01), text=text)
        producer = Producer(client, load_policies({}))
        with process([str(BIN / "failover-worker")], environment, folder / "worker.log"):
            wait_until(lambda: client.scard(keyspace.WORKERS) == 1, "the start of failover-worker")
            body: dict[str, Any] = {"messages": [{"role": "user", "content": "Summarise the call."}]}
            ids = [receipt.job_id for receipt in producer.enqueue_many(LLMJob(body=body) for _ in range(jobs))]
            wait_until(lambda: client.zcard(keyspace.finished(Q)) == jobs, "the end of the jobs")
        found = by_key(client, ids)
        completion = len(json.dumps(producer.fetch(ids[0]).completion, separators=(",", ":")))
    return {"answer": completion, **found, "all keys": sum(found.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--answer", type=int, default=1000, help="bytes of the provider's body")
    chosen = parser.parse_args()
    around = int(measured("", 1)["answer"])
    passed = True
    for kind, text_of in (("English", english), ("random letters", letters)):
        found = measured(text_of(max(1, chosen.answer - around)), chosen.jobs)
        good = found["all keys"] <= MOST_BYTES + max(0, found["answer"] - 1000) * 4 / 3
        passed = passed and good
        print(f"{kind:15} {'passed' if good else 'FAILED'}  {json.dumps({k: round(v) for k, v in found.items()})}")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
