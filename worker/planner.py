"""Job, policy and routes -> ordered candidates, each kept or rejected with a reason, before any network call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from producer.job import ChatBody, LLMJob
from producer.policy import Capability, JobPolicy
from worker.routes import Route, Routes


@dataclass(frozen=True)
class Rejected:
    route: Route
    reason: str


@dataclass(frozen=True)
class Plan:
    """Candidates in the order to try them: hot, then warm."""

    candidates: tuple[Route, ...]
    rejected: tuple[Rejected, ...]


def plan(job: LLMJob, policy: JobPolicy, routes: Routes) -> Plan:
    """Every route of the map ends in exactly one of the two lists."""
    needed = set(policy.requires) | _asked_for(job.body)
    candidates, rejected = [], []
    for route in routes.routes:
        lacking = needed.difference(route.entry.capabilities) if route.entry.capabilities is not None else None
        if lacking:
            rejected.append(Rejected(route, f"lacks {', '.join(sorted(lacking))}"))
        else:
            candidates.append(route)
    return Plan(tuple(candidates), tuple(rejected))


def _asked_for(body: ChatBody) -> set[Capability]:
    """The capabilities that a chat body needs by what it contains."""
    asked: set[Capability] = set()
    if body.get("tools"):
        asked.add("tools")
    form = body.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_object":
        asked.add("json_mode")
    elif kind == "json_schema":
        asked.add("json_schema")
    if any(_has_image(message.get("content")) for message in body["messages"]):
        asked.add("vision")
    return asked


def _has_image(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(p, dict) and p.get("type") == "image_url" for p in content)
