"""celery on gevent, with results in Redis."""

from __future__ import annotations

import sys
from typing import Any

import requests
from celery import Celery

from bench.peers.workload import COMPLETIONS, CONCURRENCY, KEEP_RESULTS_SECONDS, REDIS_URL, body

app = Celery("bench.peers.apps.celery_app", broker=REDIS_URL, backend=REDIS_URL)
app.conf.update(
    result_expires=KEEP_RESULTS_SECONDS, worker_prefetch_multiplier=1, task_acks_late=True, broker_pool_limit=10
)
session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=CONCURRENCY))


@app.task(name="complete")
def complete(chat: dict[str, Any]) -> Any:
    return session.post(COMPLETIONS, json=chat, timeout=600).json()


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        complete.delay(body(number))
