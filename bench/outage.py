"""`make bench-outage`: every provider down for 90 minutes, ten thousand jobs waiting; time runs 300 times as fast.

    python -m bench.outage [--jobs 10000] [--minutes 90]

The breakers' cooldown is 0.1 s instead of 30 s, so the outage lasts 18 s for 90 minutes. Passes when no job is dead,
providers were called for probes only (and by the jobs in flight when it began), everything was done without a new
submission, in order, and the drain opened no breaker again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time

import redis

from bench.throughput import bench_place, wait_until
from ops.local import session
from ops.simulators.provider import Control
from producer import LLMJob, Producer, keyspace
from producer.connection import connect
from producer.policy import load_policies
from producer.scripts import ask
from worker.breakers.local import Rules
from worker.configuration import Configuration
from worker.control.admission import RAMP_SECONDS
from worker.routes.route import read_routes

FASTER = 300
SLOTS = 100
LATENCY = (0.2, 0.4)
Q = "ai-tasks"
UPSTREAMS = ("hot", "warm")


class Events(logging.Handler):
    """How often the gate shut."""

    shut = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.shut += record.msg == "no route is open, claiming waits"


def measure(jobs: int, minutes: float, events: Events) -> dict[str, float]:
    """The outage, the healing and the drain, on a worker of this process."""
    cooldown, outage = Rules.cooldown_seconds / FASTER, minutes * 60 / FASTER
    with bench_place(LATENCY) as (url, environment, folder), connect(url) as client:
        control = Control(environment["SIMULATOR"])
        tiers = {tier: [route(control, upstream)] for tier, upstream in (("hot", UPSTREAMS[0]), ("warm", UPSTREAMS[1]))}
        (folder / "routes.json").write_text(json.dumps(tiers))
        policies = load_policies({})
        producer = Producer(client, policies)
        for upstream in UPSTREAMS:
            control.behave(upstream, status=503)
        wanted = [LLMJob(body={"messages": [{"role": "user", "content": str(number)}]}) for number in range(jobs)]
        job_ids = [receipt.job_id for receipt in producer.enqueue_many(wanted)]

        rules = Rules(cooldown_seconds=cooldown, longest_cooldown_seconds=Rules.longest_cooldown_seconds / FASTER)
        with session.own_worker(
            url, Configuration(policies, read_routes(folder / "routes.json", {})), slots=SLOTS, rules=rules
        ):
            began = time.monotonic()
            wait_until(lambda: time.monotonic() > began + outage, "the outage", outage + 60)
            calls = sum(int(control.account(upstream)["asked"]) for upstream in UPSTREAMS)
            touched = jobs - int(client.llen(keyspace.queue(Q)))
            shut_before = events.shut
            for upstream in UPSTREAMS:
                control.behave(upstream, latency=LATENCY)
            ramping, took = drained(client, jobs)
        dead = int(client.zcard(keyspace.failed(Q)))
        ended_at = ask(client, [("HGET", keyspace.job(job_id), "ended_at") for job_id in job_ids])
    order = sorted(range(jobs), key=lambda number: ended_at[number])
    return {
        "jobs": jobs,
        "minutes of outage": minutes,
        "dead": dead,
        "calls during the outage": calls,
        "probes that the cooldown allows": round(len(UPSTREAMS) * outage / cooldown),
        "jobs touched by the outage": touched,
        "seconds from healing to all done": round(took, 1),
        "rate while ramping, jobs/s": round(ramping / RAMP_SECONDS),
        "steady rate, jobs/s": round((jobs - ramping) / max(0.1, took - RAMP_SECONDS)),
        "gate shut again by the drain": events.shut - shut_before,
        "jobs out of order by 5 rounds of slots": sum(abs(at - n) > 5 * SLOTS for at, n in enumerate(order)),
    }


def route(control: Control, upstream: str) -> dict[str, str]:
    return {"provider": upstream, "model": "m", "baseUrl": control.base_url(upstream), "apiKeyEnv": ""}


def drained(client: redis.Redis, jobs: int) -> tuple[int, float]:
    """(jobs ended while ramping, seconds until all have ended)."""
    began = time.monotonic()
    ramping = 0
    while (ended := int(client.zcard(keyspace.finished(Q)) + client.zcard(keyspace.failed(Q)))) < jobs:
        if time.monotonic() <= began + RAMP_SECONDS:
            ramping = ended
        if time.monotonic() > began + 300:
            raise SystemExit(f"bench: only {ended} of {jobs} ended")
        time.sleep(0.1)
    return ramping, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=90)
    chosen = parser.parse_args()
    events = Events()
    logger = logging.getLogger("failover")
    logger.addHandler(events)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    found = measure(chosen.jobs, chosen.minutes, events)
    print("\n".join(f"{name:40} {value:g}" for name, value in found.items()))
    few_calls = found["calls during the outage"] <= found["probes that the cooldown allows"] + 6 * SLOTS
    ramped = found["rate while ramping, jobs/s"] <= 1.5 * found["steady rate, jobs/s"]
    calm = (
        found["dead"] == found["gate shut again by the drain"] == found["jobs out of order by 5 rounds of slots"] == 0
    )
    passed = few_calls and ramped and calm
    print("passed" if passed else "FAILED")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
