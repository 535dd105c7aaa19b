"""`make bench-latency`: how soon one job reaches the provider of an idle worker, and its answer whoever waits for it.

    python -m bench.latency [--jobs 100] [--concurrency 100]

Milliseconds at the median, the 95th percentile and the most: from the call of `enqueue` to the arrival of the request at the
provider, and from the provider's answer to the moment at which the result can be read. One job at a time, after a pause; the
provider takes 50 ms, as no model answers at once.
"""

from __future__ import annotations

import argparse
import random
import time
from statistics import median, quantiles

from bench.peers.compare import Place, Profile, place_of
from bench.throughput import BIN, process, wait_until
from producer import LLMJob, Producer
from producer.connection import connect
from producer.policy import load_policies

PROVIDER_SECONDS = 0.05
PAUSE_SECONDS = (0.02, 0.08)  # so that no job meets the round trips of the one before


def sample(producer: Producer, place: Place, number: int) -> tuple[float, float]:
    """Milliseconds to the provider, and back to whoever reads the result."""
    place.provider("reset")
    time.sleep(random.uniform(*PAUSE_SECONDS))
    began = time.time()
    job_id = producer.enqueue(LLMJob(body={"messages": [{"role": "user", "content": f"note {number}"}]}))
    while not producer.ended([job_id])[0]:
        pass
    readable, seen = time.time(), place.provider("stats")
    return 1000 * (seen["first"] - began), 1000 * (readable - seen["last"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=100)
    chosen = parser.parse_args()
    worker = [str(BIN / "failover-worker"), "--concurrency", str(chosen.concurrency)]
    with (
        place_of(Profile(chosen.concurrency, (PROVIDER_SECONDS, PROVIDER_SECONDS), 0)) as place,
        connect(place.redis_url) as client,
        process(worker, place.environment, place.log),
    ):
        wait_until(lambda: client.scard("rq:workers") == 1, "the start of failover-worker")
        producer = Producer(client, load_policies({}))
        samples = [sample(producer, place, number) for number in range(chosen.jobs + 5)][5:]
    for name, values in zip(("enqueue to provider", "provider to result"), zip(*samples, strict=True), strict=True):
        print(
            f"{name:20} median {median(values):5.1f} ms   p95 {quantiles(values, n=20)[-1]:5.1f}   most {max(values):5.1f}"
        )


if __name__ == "__main__":
    main()
