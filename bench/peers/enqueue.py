"""`make bench-enqueue`: jobs a second that one producer hands in, beside rq's `enqueue` and `enqueue_many` in the same rounds.

    python -m bench.peers.enqueue [--rounds 5] [--many 3000] [--single 500]

The same chat body of 450 bytes for both, on an embedded Valkey with its AOF on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import redis
from rq import Queue

from bench.peers.workload import body
from bench.stock_job import complete
from ops.local import embedded
from producer import LLMJob, Producer
from producer.connection import connect
from producer.policy import load_policies


def per_second(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def round_of(client: redis.Redis, many: int, single: int) -> dict[str, tuple[float, float]]:
    """(ours, rq's) of each way, jobs a second."""
    client.flushall()
    producer, queue = Producer(client, load_policies({})), Queue("stock", connection=client)
    jobs = [LLMJob(body=body(n)) for n in range(many)]  # type: ignore[arg-type]  # a chat body as any other
    data = [Queue.prepare_data(complete, ("http://x", body(n)), timeout=60) for n in range(many)]

    def ours_single() -> None:
        for job in jobs[:single]:
            producer.enqueue(job)

    def rqs_single() -> None:
        for n in range(single):
            queue.enqueue(complete, "http://x", body(n))

    return {
        "many": (
            per_second(many, lambda: producer.enqueue_many(jobs)),
            per_second(many, lambda: queue.enqueue_many(data)),
        ),
        "single": (per_second(single, ours_single), per_second(single, rqs_single)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=3000)
    parser.add_argument("--single", type=int, default=500)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, embedded.running(Path(name)) as url, connect(url) as client:
        round_of(client, 100, 20)  # scripts are loaded, modules are warm
        rounds = [round_of(client, chosen.many, chosen.single) for _ in range(chosen.rounds)]
    for way in ("many", "single"):
        ours, rqs = ([each[way][side] for each in rounds] for side in (0, 1))
        ratios = [mine / theirs for mine, theirs in zip(ours, rqs, strict=True)]
        print(
            f"{way:7} ours {median(ours):7.0f}/s   rq {median(rqs):7.0f}/s   "
            f"ratio {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
