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

from bench.throughput import bench_place, wait_until
from ops import place
from ops.simulator import Control
from producer import LLMJob, Producer, keyspace
from producer.connection import connect
from producer.policy import load_policies
from producer.scripts import ask
from worker.breaker import COOLDOWN_SECONDS, RouteBreaker
from worker.gate import RAMP_SECONDS
from worker.routes import read_routes

FASTER = 300
SLOTS = 100
LATENCY = (0.2, 0.4)
Q = "ai-tasks"


class Events(logging.Handler):
    """How often the gate shut and opened."""

    def __init__(self) -> None:
        super().__init__()
        self.count = {"no route is open, claiming waits": 0, "a route is open again, claiming ramps up": 0}

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg in self.count:
            self.count[record.msg] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=90)
    chosen = parser.parse_args()
    events = Events()
    logging.getLogger("failover").addHandler(events)
    logging.getLogger("failover").setLevel(logging.INFO)
    logging.getLogger("failover").propagate = False
    cooldown, outage = COOLDOWN_SECONDS / FASTER, chosen.minutes * 60 / FASTER
    with bench_place(LATENCY) as (url, environment, folder), connect(url) as client:
        control = Control(environment["SIMULATOR"])
        routes = [
            {"provider": name, "model": "m", "baseUrl": control.base_url(name), "apiKeyEnv": ""}
            for name in ("hot", "warm")
        ]
        (folder / "routes.json").write_text(json.dumps({"hot": routes[:1], "warm": routes[1:]}))
        policies = load_policies({})
        producer = Producer(client, policies)
        for name in ("hot", "warm"):
            control.behave(name, status=503)
        jobs = [LLMJob(body={"messages": [{"role": "user", "content": str(n)}]}) for n in range(chosen.jobs)]
        job_ids = [receipt.job_id for receipt in producer.enqueue_many(jobs)]

        def breaker() -> RouteBreaker:
            return RouteBreaker(cooldown_seconds=cooldown)

        with place.own_worker(url, policies, read_routes(folder / "routes.json", {}), slots=SLOTS, breaker=breaker):
            began = time.monotonic()
            wait_until(lambda: time.monotonic() > began + outage, "the outage", outage + 60)
            calls = sum(int(control.account(name)["asked"]) for name in ("hot", "warm"))
            touched = chosen.jobs - int(client.llen(keyspace.queue(Q)))
            for name in ("hot", "warm"):
                control.behave(name, latency=LATENCY)
            healed = time.monotonic()
            done_at: list[tuple[float, int]] = []
            shut_before = events.count["no route is open, claiming waits"]
            while (ended := int(client.zcard(keyspace.finished(Q)) + client.zcard(keyspace.failed(Q)))) < chosen.jobs:
                done_at.append((time.monotonic() - healed, ended))
                if time.monotonic() > healed + 300:
                    raise SystemExit(f"bench: only {ended} of {chosen.jobs} ended")
                time.sleep(0.1)
            took = time.monotonic() - healed
            shut_again = events.count["no route is open, claiming waits"] - shut_before
        dead = int(client.zcard(keyspace.failed(Q)))
        ended_at = ask(client, [("HGET", keyspace.job(job_id), "ended_at") for job_id in job_ids])
    ramp = next(count for seconds, count in reversed(done_at) if seconds <= RAMP_SECONDS) / RAMP_SECONDS
    steady = (chosen.jobs - ramp * RAMP_SECONDS) / max(0.1, took - RAMP_SECONDS)
    probes = 2 * outage / cooldown
    order = sorted(range(chosen.jobs), key=lambda n: ended_at[n])
    late = sum(abs(place_ - n) > 5 * SLOTS for place_, n in enumerate(order))
    found = {
        "jobs": chosen.jobs,
        "minutes of outage": chosen.minutes,
        "dead": dead,
        "calls during the outage": calls,
        "probes that the cooldown allows": round(probes),
        "jobs touched by the outage": touched,
        "seconds from healing to all done": round(took, 1),
        "rate while ramping, jobs/s": round(ramp),
        "steady rate, jobs/s": round(steady),
        "gate shut again by the drain": shut_again,
        "jobs out of order by more than 5 rounds of slots": late,
    }
    print("\n".join(f"{name:50} {value}" for name, value in found.items()))
    allowed = probes + 6 * SLOTS
    passed = dead == 0 and calls <= allowed and shut_again == 0 and ramp <= 1.5 * steady and late <= SLOTS
    print("passed" if passed else "FAILED")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
