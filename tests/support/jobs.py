"""Jobs for tests."""

from __future__ import annotations

from typing import Any

from producer import LLMJob


def chat(content: str = "hello", **fields: Any) -> LLMJob:
    return asking({"messages": [{"role": "user", "content": content}]}, **fields)


def asking(body: dict[str, Any], **fields: Any) -> LLMJob:
    """A job with this body. What a body may hold beside its typed fields is anything: it is checked as it runs."""
    return LLMJob.model_validate({"body": body, **fields})
