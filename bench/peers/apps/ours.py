"""failover-worker: the same bodies, by its own Producer."""

from __future__ import annotations

import sys

from bench.peers.workload import REDIS_URL, body
from producer import LLMJob, Producer
from producer.connection import connect
from producer.policy import load_policies


def main(jobs: int) -> None:
    with connect(REDIS_URL) as client:
        chats = ({name: value for name, value in body(number).items() if name != "model"} for number in range(jobs))
        Producer(client, load_policies({})).enqueue_many(LLMJob(job_type="batch", body=chat) for chat in chats)


if __name__ == "__main__":
    main(int(sys.argv[1]))
