"""A rolling upgrade and the way back: workers of two releases side by side on one Redis, replaced while jobs are in flight.

    python -m bench.longrun.upgrade --before FOLDER [--jobs 2000]

FOLDER: a checkout of the release before. Two of its workers begin; they are told to stop one by one and replaced by workers of
this checkout, and then the other way round. Both releases accept jobs. Passes (exit 0) when every job is done, each was paid
once, both releases read every result, and the sums of the ledger are those of the results to the micro-dollar.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from bench.throughput import BIN, simulator_process
from ops.local import embedded
from ops.simulators.provider import Control
from producer import Producer, keyspace
from producer.connection import connect
from producer.policy import load_policies
from producer.scripts import ask
from worker.reports import statement

HERE = Path(__file__).parents[2]
LATENCY = (0.2, 0.6)
SLOTS = 10
SECONDS = 300.0
PRICE = {"input": 3, "output": 15}  # dollars a million tokens
ENQUEUE = """
import sys
from producer import LLMJob, Producer
from producer.connection import connect
from producer.policy import load_policies
import os
begin, count = map(int, sys.argv[1:])
with connect(os.environ["REDIS_URL"]) as client:
    jobs = [LLMJob(job_type="default", tenant_id=("acme", "olive")[n % 2], feature="notes", idempotency_key=f"k{n}",
                   body={"messages": [{"role": "user", "content": f"job {n}"}]}) for n in range(begin, begin + count)]
    for receipt in Producer(client, load_policies(os.environ)).enqueue_many(jobs):
        print(receipt.job_id)
"""
READ = """
import os, sys
from producer import Producer
from producer.connection import connect
from producer.policy import load_policies
with connect(os.environ["REDIS_URL"]) as client:
    found = Producer(client, load_policies(os.environ)).fetch_many(sys.stdin.read().split())
    print(sum(result is not None and result.status == "done" and bool(result.text) for result in found))
"""


@dataclass
class Place:
    """One Redis, one provider, and workers of two checkouts."""

    folder: Path
    url: str
    provider: Control
    client: redis.Redis
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    in_flight: list[int] = field(default_factory=list)  # calls, as each worker was told to stop

    def environment(self, checkout: Path) -> dict[str, str]:
        ours = {"ROUTES_FILE": str(self.folder / "routes.json"), "POLICIES_DIR": str(self.folder / "policies")}
        return {**os.environ, **ours, "REDIS_URL": self.url, "PYTHONPATH": str(checkout)}

    def start(self, checkout: Path) -> None:
        before = self.client.scard(keyspace.WORKERS)
        with (self.folder / f"worker-{len(self.in_flight)}-{len(self.workers)}-{time.time():.0f}.log").open(
            "wb"
        ) as log:
            command = [str(BIN / "failover-worker"), "--concurrency", str(SLOTS)]
            environment = self.environment(checkout)
            self.workers.append(subprocess.Popen(command, env=environment, cwd=checkout, stdout=log, stderr=log))
        self.wait(lambda: self.client.scard(keyspace.WORKERS) > before, "a worker registers")

    def replace(self, checkout: Path) -> None:
        """Start a worker of this checkout, and stop the oldest one while its calls are in flight."""
        self.start(checkout)
        self.in_flight.append(int(self.provider.account("a")["in_flight"]))
        oldest = self.workers.pop(0)
        oldest.terminate()
        oldest.wait()

    def python(self, checkout: Path, code: str, *args: str, stdin: str = "") -> list[str]:
        command = [sys.executable, "-c", code, *args]
        environment = self.environment(checkout)
        done = subprocess.run(
            command, env=environment, cwd=checkout, input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    def ended(self) -> int:
        return int(self.client.zcard(keyspace.finished("ai-tasks")) + self.client.zcard(keyspace.failed("ai-tasks")))

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + SECONDS
        while not holds():
            if time.monotonic() > end:
                sys.exit(f"upgrade: not within {SECONDS:.0f} s: {what}")
            time.sleep(0.05)


def run(place: Place, before: Path, jobs: int) -> list[str]:
    """The ids of the jobs, once all have ended."""
    half = jobs // 2
    for _ in range(2):
        place.start(before)
    ids = place.python(before, ENQUEUE, "0", str(half))
    for share, checkout in ((0.1, HERE), (0.2, HERE), (0.5, before), (0.6, before), (0.7, HERE)):
        place.wait(lambda share=share: place.ended() >= share * jobs, f"{share:.0%} of the jobs end")  # type: ignore[misc]
        place.replace(checkout)
        if share == 0.2:
            ids += place.python(HERE, ENQUEUE, str(half), str(jobs - half))
    place.wait(lambda: place.ended() >= jobs, "all jobs end")
    place.wait(lambda: not place.client.exists(keyspace.RESERVATIONS), "no call is open")
    return ids


def report(place: Place, before: Path, ids: Sequence[str]) -> dict[str, object]:
    account = place.provider.account("a")
    found = [result for result in Producer(place.client, load_policies({})).fetch_many(ids) if result is not None]
    told, results = "\n".join(ids), ask(place.client, [("XLEN", keyspace.results(job_id)) for job_id in ids])
    of_results = sum(round((result.cost_usd or 0) * 1e6) for result in found)
    sums = statement.sums(place.client)
    states = Counter(str(result.status) for result in found)
    return {
        "jobs": len(set(ids)),
        "done": states["done"],
        "other ends": {state: count for state, count in states.items() if state != "done"},
        "in flight at each stop": place.in_flight,
        "read by the release before": int(place.python(before, READ, stdin=told)[0]),
        "read by this one": int(place.python(HERE, READ, stdin=told)[0]),
        "double results": sum(count > 1 for count in results),
        "calls": account["asked"],
        "answers paid twice": sum(count - 1 for count in account["answers_by_key"].values()),
        "micro-dollars of the results": of_results,
        "micro-dollars of the ledger": sums["total"].spent,
        "held or ambiguous": sums["total"].held + sums["total"].ambiguous,
        "micro-dollars of both tenants": sums["tenant:acme"].spent + sums["tenant:olive"].spent,
    }


def passes(found: dict[str, object], jobs: int) -> bool:
    once = all(
        found[name] == jobs for name in ("jobs", "done", "read by the release before", "read by this one", "calls")
    )
    never = not any(found[name] for name in ("double results", "answers paid twice", "held or ambiguous"))
    spent = {found[f"micro-dollars of {what}"] for what in ("the results", "the ledger", "both tenants")}
    return once and never and len(spent) == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the release before")
    parser.add_argument("--jobs", type=int, default=2000)
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="failover-bench-") as folder,
        embedded.running(Path(folder) / "valkey") as url,
        connect(url) as client,
        simulator_process() as provider,
    ):
        place = Place(Path(folder), url, provider, client)
        provider.behave("a", latency=LATENCY)
        route = {"provider": "a", "model": "m", "baseUrl": provider.base_url("a"), "apiKeyEnv": "", "price": PRICE}
        (place.folder / "routes.json").write_text(json.dumps({"hot": [route]}))
        (place.folder / "policies").mkdir()
        caps = {"version": 1, "tenants": {"acme": {"hard_usd": 100}}}
        for name, content in (("jobs", {"version": 1, "job_types": {"default": {}}}), ("budgets", caps)):
            (place.folder / "policies" / f"{name}.yaml").write_text(json.dumps(content))
        try:
            found = report(place, chosen.before.resolve(), run(place, chosen.before.resolve(), chosen.jobs))
        finally:
            for worker in place.workers:
                worker.terminate()
            for worker in place.workers:
                worker.wait()
    for name, value in found.items():
        print(f"{name:32}{value}")
    passed = passes(found, chosen.jobs)
    print("passed" if passed else "FAILED")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
