"""The same job as an ordinary RQ function: what people write today."""

from __future__ import annotations

from typing import Any

import httpx


def complete(base_url: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{base_url}/chat/completions", json={**body, "model": "gpt-4o-mini"}, timeout=60)
    answer.raise_for_status()
    return dict(answer.json())
