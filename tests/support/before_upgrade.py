"""Makes tests/data/before_upgrade.json: a Redis as this release leaves it, with jobs in every state. Run it before a release:

python -m tests.support.before_upgrade tests/data/before_upgrade.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from ops.local import embedded
from ops.simulators import provider
from producer import Producer, keyspace
from producer.connection import connect
from producer.policy import load_policies
from tests.support.jobs import chat, results
from tests.support.polling import until
from tests.support.snapshot import take
from tests.support.workshop import Workshop

Q = "ai-tasks"
PRICE = {"input": 3, "output": 15}


def main(path: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded.running(Path(folder) / "valkey") as url,
        connect(url) as client,
        provider.running() as providers,
    ):
        workshop = Workshop(Path(folder), url, providers)
        workshop.routes(hot=[{"upstream": "a", "price": PRICE}], warm=[{"upstream": "b", "price": PRICE}])
        workshop.policy(executions=3, deadline_seconds=60)
        producer = Producer(client, load_policies(workshop.environment))
        worker = workshop.worker()

        def enqueue(count: int, what: str) -> list[str]:
            jobs = [
                chat(f"{what} {n}", tenant_id=("acme", "olive")[n % 2], feature="notes", idempotency_key=f"{what}-{n}")
                for n in range(count)
            ]
            return [receipt.job_id for receipt in producer.enqueue_many(jobs)]

        told = {"done": enqueue(6, "done")}
        answers = [result.text for result in results(producer, told["done"])]
        for upstream in "ab":
            providers.behave(upstream, status=400, error={"message": "no", "type": "invalid_request_error"})
        told["dead"] = enqueue(3, "dead")
        until(lambda: client.zcard(keyspace.failed(Q)) == 3, "three are dead")
        for upstream in "ab":
            providers.behave(upstream, status=503)
        told["scheduled"] = enqueue(4, "scheduled")
        until(lambda: client.zcard(keyspace.scheduled(Q)) == 4, "four wait for another try", seconds=90)
        for upstream in "ab":
            providers.behave(upstream, latency=(60, 60))
        client.delete(*client.keys("failover:breaker:*"))
        told["running"] = enqueue(3, "running")
        until(lambda: client.zcard(keyspace.leases(Q)) >= 3, "three run", seconds=60)
        worker.kill()
        worker.wait()
        told["waiting"] = enqueue(5, "waiting")
        take(client, path)
        told_path = path.with_name(path.stem + "_jobs.json")
        told_path.write_text(json.dumps({"ids": told, "answers": answers}, indent=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
