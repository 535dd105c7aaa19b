"""Jobs for tests."""

from __future__ import annotations

from typing import Any

from producer import JobResult, LLMJob, Producer
from tests.support.polling import until


def chat(content: str = "hello", **fields: Any) -> LLMJob:
    return asking({"messages": [{"role": "user", "content": content}]}, **fields)


def asking(body: dict[str, Any], **fields: Any) -> LLMJob:
    """A job with this body. What a body may hold beside its typed fields is anything: it is checked as it runs."""
    return LLMJob.model_validate({"body": body, **fields})


def results(producer: Producer, job_ids: list[str], seconds: float = 40) -> list[JobResult]:
    until(lambda: all(producer.ended(job_ids)), "all jobs end", seconds)
    found = producer.fetch_many(job_ids)
    return [result for result in found if result is not None]
