"""`make bench-redis-full`: 2,000 jobs wait on a Redis that fills up, then workers start on the full one.

    python -m bench.redis_full [--jobs 2000]

Passes when intake is refused with 503 and Retry-After, people get one incident, every reading command works, all accepted jobs
are done without a person, and intake goes on once Redis has more memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis

from bench.pause import ready
from bench.throughput import bench_place, free_port, process, wait_until
from ops.simulators import slack_api
from ops.simulators.provider import Control
from ops.simulators.slack_api import Slack
from producer import LLMJob, Producer, keyspace
from producer.connection import connect
from producer.errors import RedisFull
from producer.policy import load_policies

Q = "ai-tasks"
BIN = Path(sys.executable).parent
LATENCY = (0.1, 0.3)
WORKERS = 2
PROMPT_BYTES = 4000
FULL_AT, OVER_AT = 0.94, 1.02  # of maxmemory: when all jobs wait, and when the workers start
TOKEN = "bench"  # noqa: S105 - of a server that lives for a minute
READING = (("status",), ("resume", "--dry-run"), ("dlq", "stats"))


@dataclass
class Place:
    """A Valkey, a web process and a Slack."""

    client: redis.Redis
    web: httpx.Client
    slack: Slack
    control: Control
    environment: dict[str, str]
    folder: Path

    def use(self, share: float) -> None:
        """Set maxmemory so that this share of it is used now."""
        self.client.config_set("maxmemory", "0")
        self.client.config_set("maxmemory", int(self.client.info("memory")["used_memory"] / share))

    def post(self) -> httpx.Response:
        return self.web.post("/jobs", json={"body": body("over HTTP")})

    def failed_commands(self) -> int:
        """How many commands that read do not exit with 0."""
        environment = {**os.environ, **self.environment}
        runs = (
            subprocess.run([BIN / "failover", *command], env=environment, capture_output=True, check=False)
            for command in READING
        )
        return sum(done.returncode != 0 for done in runs)


@contextmanager
def place() -> Iterator[Place]:
    with (
        bench_place(LATENCY) as (url, environment, folder),
        connect(url) as client,
        slack_api.running() as slack,
        ExitStack() as stack,
    ):
        port = free_port()
        environment |= slack.environment
        web_environment = {**environment, "PORT": str(port), "FAILOVER_API_TOKEN": TOKEN}
        stack.enter_context(process([str(BIN / "failover"), "serve"], web_environment, folder / "web.log"))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        web = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=30)
        )
        wait_until(lambda: ready(web), "the web process")
        yield Place(client, web, slack, Control(environment["SIMULATOR"]), environment, folder)


def body(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}]}


def filled(here: Place, jobs: int) -> list[str]:
    """Submit jobs until Redis accepts no more. Returns the ids of the accepted ones."""
    producer = Producer(here.client, load_policies({}))
    job_ids = [
        receipt.job_id
        for receipt in producer.enqueue_many(LLMJob(body=body(f"{n} " + "x" * PROMPT_BYTES)) for n in range(jobs))
    ]
    here.use(FULL_AT)
    while True:
        try:
            job_ids.append(producer.enqueue(LLMJob(body=body("one more " + "x" * PROMPT_BYTES))))
        except RedisFull:
            return job_ids


def measure(jobs: int) -> dict[str, float]:
    """Fill, refuse, work, and accept again."""
    with place() as here, ExitStack() as stack:
        job_ids = filled(here, jobs)
        refused = here.post()
        here.use(OVER_AT)  # now Redis refuses every write outside of our scripts
        began = time.monotonic()
        for number in range(WORKERS):
            command = [str(BIN / "failover-worker"), "--concurrency", "50"]
            stack.enter_context(process(command, here.environment, here.folder / f"worker-{number}.log"))
        wait_until(lambda: here.client.zcard(keyspace.finished(Q)) == len(job_ids), "the drain", 120)
        took = time.monotonic() - began
        wait_until(lambda: bool(here.slack.in_channel()), "the message", 30)
        failed = here.failed_commands()
        metrics = here.web.get("/metrics").status_code
        here.use(0.5)
        wait_until(lambda: here.post().status_code == 202, "intake", 30)
        return {
            "jobs accepted": len(job_ids),
            "status of POST /jobs on the full Redis": refused.status_code,
            "its Retry-After, seconds": float(refused.headers.get("Retry-After", -1)),
            "seconds from start to all done": round(took, 1),
            "jobs done": len(set(job_ids) & finished(here.client)),
            "dead": here.client.zcard(keyspace.failed(Q)),
            "answers paid twice": sum(
                times > 1 for times in here.control.account("provider")["answers_by_key"].values()
            ),
            "messages in the channel": len(here.slack.in_channel()),
            "reading commands that failed": failed,
            "status of GET /metrics": metrics,
        }


def finished(client: redis.Redis) -> set[str]:
    return {job_id.decode() for job_id in client.zrange(keyspace.finished(Q), 0, -1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=2000)
    found = measure(parser.parse_args().jobs)
    print("\n".join(f"{name:40} {value:g}" for name, value in found.items()))
    told = found["status of POST /jobs on the full Redis"] == 503 and found["its Retry-After, seconds"] > 0
    whole = found["jobs done"] == found["jobs accepted"] and found["messages in the channel"] == 1
    readable = found["reading commands that failed"] == 0 and found["status of GET /metrics"] == 200
    passed = told and whole and readable and found["dead"] == found["answers paid twice"] == 0
    print("passed" if passed else "FAILED")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
