"""`make bench-memory`: what a job in flight takes of a worker's memory, beside a bare aiohttp loop in the same rounds.

    python -m bench.worker.memory [--jobs 2000] [--rounds 3]

The resident memory with all jobs in flight, and by how much it is above that with ten. The bodies of 450 bytes are in it.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from statistics import median

from bench.peers.compare import FLOOR, OURS, Place, Profile, place_of, rss_mb, tree
from bench.peers.contestants import Contestant, contestants, install
from bench.throughput import process, wait_until
from producer.connection import connect

FEW, PROVIDER_SECONDS, SETTLING_SECONDS = 10, 60.0, 2.0
MOST_KB, MOST_MB = 20.0, 120.0


def in_flight(contestant: Contestant, jobs: int, place: Place) -> float:
    """MB of its processes once so many jobs are in flight."""
    with connect(place.redis_url) as client:
        client.flushall()
    place.provider("reset")
    if contestant.enqueue:
        with process([*contestant.enqueue, str(jobs)], place.environment, place.log) as producer:
            producer.wait()
    with process(list(contestant.work), place.environment, place.log) as worker:
        wait_until(lambda: place.provider("stats")["most"] >= jobs, f"{jobs} jobs in flight")
        time.sleep(SETTLING_SECONDS)
        found = sum(rss_mb(pid) for pid in tree(worker.pid))
        worker.kill()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    install()
    grown: dict[str, list[tuple[float, float]]] = {FLOOR: [], OURS: []}
    profile = Profile(chosen.jobs, (PROVIDER_SECONDS, PROVIDER_SECONDS), chosen.jobs)
    for _ in range(chosen.rounds):
        for name, found in grown.items():
            few, many = (_of(name, jobs, profile) for jobs in (FEW, chosen.jobs))
            found.append((many, (many - few) * 1000 / (chosen.jobs - FEW)))
    for name, found in grown.items():
        whole, each = (median(of) for of in zip(*found, strict=True))
        print(f"{name:18} {whole:6.1f} MB with {chosen.jobs} in flight, {each:5.1f} KB a job above {FEW}")
    whole, each = (median(of) for of in zip(*grown[OURS], strict=True))
    for good, words in (
        (each <= MOST_KB, f"{each:.1f} KB a job in flight, at most {MOST_KB:g}"),
        (whole <= MOST_MB, f"{whole:.0f} MB with {chosen.jobs}, at most {MOST_MB:g}"),
    ):
        print(f"{'passed' if good else 'FAILED'}  {words}")
    return 0


def _of(name: str, jobs: int, profile: Profile) -> float:
    with place_of(replace(profile, jobs=jobs)) as place:
        (contestant,) = (each for each in contestants(profile.concurrency, jobs) if each.name == name)
        return in_flight(contestant, jobs, place)


if __name__ == "__main__":
    sys.exit(main())
