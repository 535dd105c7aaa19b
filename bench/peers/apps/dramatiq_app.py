"""dramatiq on gevent, with results in Redis."""

from __future__ import annotations

import sys
from typing import Any

import dramatiq
import requests
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.peers.workload import COMPLETIONS, CONCURRENCY, KEEP_RESULTS_SECONDS, REDIS_URL, body

broker = RedisBroker(url=REDIS_URL)
broker.add_middleware(Results(backend=RedisBackend(url=REDIS_URL)))
dramatiq.set_broker(broker)
session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=CONCURRENCY))


@dramatiq.actor(store_results=True, result_ttl=KEEP_RESULTS_SECONDS * 1000, max_retries=3, time_limit=600_000)
def complete(chat: dict[str, Any]) -> Any:
    return session.post(COMPLETIONS, json=chat, timeout=600).json()


if __name__ == "__main__":
    from bench.peers.apps import dramatiq_app

    for number in range(int(sys.argv[1])):
        dramatiq_app.complete.send(body(number))
