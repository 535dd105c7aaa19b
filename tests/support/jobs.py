"""Jobs for tests."""

from __future__ import annotations

from typing import Any

from producer import LLMJob


def chat(content: str = "hello", **fields: Any) -> LLMJob:
    return LLMJob(body={"messages": [{"role": "user", "content": content}]}, **fields)
