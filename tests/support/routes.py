"""Two routes with prices, and jobs that go through them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from producer import Producer
from producer.job import LLMJob
from tests.support.jobs import chat
from tests.support.workshop import Workshop

PRICES = {"a": {"input": 1, "output": 2}, "b": {"input": 10, "output": 20}}


def two_routes(workshop: Workshop, **fields: Any) -> None:
    workshop.routes(
        hot=[{"upstream": "a", "price": PRICES["a"], **fields}],
        warm=[{"upstream": "b", "price": PRICES["b"], **fields}],
    )


def routing(workshop: Workshop, **default: Any) -> None:
    """policies/routing.yaml with one policy, beside jobs.yaml."""
    folder = Path(workshop.environment["POLICIES_DIR"])
    (folder / "routing.yaml").write_text(json.dumps({"version": 1, "job_types": {"default": default}}))


def done(producer: Producer, job: LLMJob | None = None) -> Any:
    return producer.wait(producer.enqueue(job or chat()), 30)


def asked(workshop: Workshop, upstream: str) -> int:
    count: int = workshop.providers.account(upstream)["asked"]
    return count
