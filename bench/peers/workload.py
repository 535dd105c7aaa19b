"""The job that every worker of the comparison does, with nothing but the standard library: the peers import it too."""

from __future__ import annotations

import json
import os
from typing import Any

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
PROVIDER_URL = os.environ.get("PROVIDER_URL", "http://127.0.0.1:8000")
CONCURRENCY = int(os.environ.get("CONCURRENCY", "500"))
COMPLETIONS = f"{PROVIDER_URL}/v1/chat/completions"
STREAMED = os.environ.get("STREAMED", "") != ""  # by those that can: the bare loop and ours
KEEP_RESULTS_SECONDS = 3600


def body(number: int) -> dict[str, Any]:
    """A chat body of about 450 bytes."""
    content = f"Summarise call note {number}: " + "the client asked for a shorter report and an earlier call. " * 6
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}], "max_tokens": 200}


def answer() -> bytes:
    """What the provider sends: a completion of about 800 bytes."""
    message = {"role": "assistant", "content": "x" * 400}
    usage = {"prompt_tokens": 120, "completion_tokens": 100, "total_tokens": 220}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1764288000, "model": "gpt-4o-mini"}
    return json.dumps({**head, "choices": choices, "usage": usage}).encode()
