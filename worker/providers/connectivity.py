"""Whether a route can be reached and takes its key, asked without a billed call: its list of models."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import httpx

from worker.providers.anthropic import VERSION, path_of
from worker.routes.route import Route

TIMEOUT_SECONDS = 5.0

Found = tuple[Literal["ok", "key refused", "unreachable"], str]


def reach(routes: Sequence[Route]) -> list[Found]:
    """What each route answers, all asked at once."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(_reach, routes))


def _reach(route: Route) -> Found:
    """By its first key that is taken. A gateway without /models answers 404, and is reachable."""
    refused: list[str] = []
    for key in route.keys or (None,):
        how, detail = _ask(route, key.secret if key else "")
        if how != "key refused":
            return how, ", ".join([detail, *(f"{source} is refused" for source in refused)])
        refused.append(key.source if key else "no key")
    return "key refused", ", ".join(refused)


def _ask(route: Route, key: str) -> Found:
    headers, path = ({"Authorization": f"Bearer {key}"} if key else {}), "/models"
    if route.entry.api == "anthropic":
        headers, path = {"x-api-key": key, "anthropic-version": VERSION}, path_of(route.base_url, "models")
    try:
        reply = httpx.get(route.base_url + path, headers=headers, timeout=TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        return "unreachable", type(error).__name__
    except httpx.InvalidURL:
        return "unreachable", "its baseUrl is not a URL"
    if reply.status_code in (401, 403):
        return "key refused", str(reply.status_code)
    if reply.status_code >= 500:
        return "unreachable", f"answers {reply.status_code}"
    return "ok", str(reply.status_code)
