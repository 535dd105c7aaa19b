"""`make bench-pause`: fifty workers, jobs coming in all the time, one POST to the budget's webhook.

    python -m bench.pause [--workers 50] [--seconds 5]

Passes when no job starts after the 204, the running ones end, and after POST /budget/resume all are done, started in the
order in which they were accepted.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import httpx
import redis

from bench.throughput import bench_place, free_port, process, wait_until
from ops.simulators.provider import Control
from producer import LLMJob, Producer, keyspace
from producer.connection import connect
from producer.policy import load_policies
from producer.scripts import ask

Q = "ai-tasks"
BIN = Path(sys.executable).parent
LATENCY = (0.2, 0.6)
EVERY_SECONDS = 0.005  # a job is submitted
TOKEN = "bench"  # noqa: S105 - of a server that lives for a minute


class Feeder(threading.Thread):
    """Submits a job every few milliseconds until told to stop."""

    def __init__(self, producer: Producer) -> None:
        super().__init__(daemon=True)
        self.job_ids: list[str] = []
        self._producer, self._stop_asked = producer, threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(EVERY_SECONDS):
            body = {"messages": [{"role": "user", "content": str(len(self.job_ids))}]}
            self.job_ids.append(self._producer.enqueue(LLMJob.parse({"body": body})))

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


@contextmanager
def formation(workers: int) -> Iterator[tuple[redis.Redis, httpx.Client, Control]]:
    """Workers and a web process on a Valkey of their own: its client, the web's, and the provider's control."""
    with bench_place(LATENCY) as (url, environment, folder), connect(url) as client, ExitStack() as stack:
        port = free_port()
        web_environment = {**environment, "PORT": str(port), "FAILOVER_API_TOKEN": TOKEN}
        stack.enter_context(process([str(BIN / "failover"), "serve"], web_environment, folder / "web.log"))
        for number in range(workers):
            command = [str(BIN / "failover-worker"), "--concurrency", "10"]
            stack.enter_context(process(command, environment, folder / f"worker-{number}.log"))
        web = stack.enter_context(
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False
            )
        )
        wait_until(lambda: client.scard(keyspace.WORKERS) == workers, "the workers")
        wait_until(lambda: ready(web), "the web process")
        yield client, web, Control(environment["SIMULATOR"])


def measure(workers: int, seconds: float) -> dict[str, float]:
    """One pause and one resume, while jobs come in."""
    with formation(workers) as (client, web, control):
        feeder = Feeder(Producer(client, load_policies({})))
        feeder.start()
        wait_until(lambda: control.account("provider")["answered"] > workers, "work")

        asked_at = time.time()
        web.post("/budget/webhook", json={"provider": "gemini", "percentUsed": 85}).raise_for_status()
        paused_at = time.time()
        wait_until(lambda: time.time() > paused_at + seconds, "jobs coming in while paused")
        wait_until(lambda: client.zcard(keyspace.leases(Q)) == 0, "running jobs to end")
        ended = client.zcard(keyspace.finished(Q))
        running = sum(at > asked_at for at in stamps(client, feeder.job_ids, "ended_at"))
        started_after = sum(at > paused_at for at in stamps(client, feeder.job_ids, "started_at"))
        feeder.stop()
        backlog = len(feeder.job_ids) - ended

        resumed = time.monotonic()
        web.post("/budget/resume").raise_for_status()
        wait_until(lambda: client.zcard(keyspace.finished(Q)) == len(feeder.job_ids), "the drain")
        took = time.monotonic() - resumed
        began = stamps(client, feeder.job_ids, "started_at")
        return {
            "workers": workers,
            "ms from the POST to its 204": round(1000 * (paused_at - asked_at), 1),
            "jobs submitted while paused": backlog,
            "jobs running at the 204, all ended": running,
            "jobs started after the 204": started_after,
            "seconds from resume to all done": round(took, 1),
            "jobs done": client.zcard(keyspace.finished(Q)),
            "jobs started out of order": sum(later < earlier for earlier, later in pairwise(began)),
            "dead": client.zcard(keyspace.failed(Q)),
        }


def stamps(client: redis.Redis, job_ids: list[str], field: str) -> list[float]:
    """One of RQ's times of each job, in Unix seconds; jobs without one are left out."""
    values = ask(client, [("HGET", keyspace.job(job_id), field) for job_id in list(job_ids)])
    return [time_of(value.decode()) for value in values if value]


def time_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def ready(web: httpx.Client) -> bool:
    try:
        return web.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5)
    chosen = parser.parse_args()
    found = measure(chosen.workers, chosen.seconds)
    print("\n".join(f"{name:40} {value:g}" for name, value in found.items()))
    passed = found["jobs started after the 204"] == found["jobs started out of order"] == found["dead"] == 0
    print("passed" if passed else "FAILED")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
