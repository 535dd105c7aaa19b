"""rq, whose worker forks for each job and does one at a time."""

from __future__ import annotations

import sys
from typing import Any

import requests
from redis import Redis
from rq import Queue

from bench.peers.workload import COMPLETIONS, KEEP_RESULTS_SECONDS, REDIS_URL, body


def complete(chat: dict[str, Any]) -> Any:
    return requests.post(COMPLETIONS, json=chat, timeout=600).json()


if __name__ == "__main__":
    from bench.peers.apps import rq_app

    queue = Queue("stock", connection=Redis.from_url(REDIS_URL))
    for number in range(int(sys.argv[1])):
        queue.enqueue(rq_app.complete, body(number), result_ttl=KEEP_RESULTS_SECONDS)
