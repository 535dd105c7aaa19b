"""What may be given up when a job is late: shorter context, a smaller model, a human's answer (SOP step 1).

A job is late once it has waited longer than its policy's max_time_to_answer_seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from producer.job import ChatBody
from producer.policy import Degrade
from worker.routes import Route


def degraded(
    body: ChatBody, routes: Sequence[Route], modes: Sequence[Degrade]
) -> tuple[ChatBody, tuple[Route, ...], list[Degrade]]:
    """(body, routes, modes) for a late job; the modes are those that changed something."""
    changed: list[Degrade] = []
    if "shorter_context" in modes and (shorter := shorter_context(body)) is not body:
        body = shorter
        changed.append("shorter_context")
    ordered = tuple(routes)
    if "smaller_model" in modes and (ordered := smaller_first(routes)) != tuple(routes):
        changed.append("smaller_model")
    return body, ordered, changed


def smaller_first(routes: Sequence[Route]) -> tuple[Route, ...]:
    """Each tier from its last route up: a tier lists its models from the largest to the smallest."""
    tiers = (list(tier) for _, tier in groupby(routes, key=lambda route: route.tier))
    return tuple(route for tier in tiers for route in reversed(tier))


def shorter_context(body: ChatBody) -> ChatBody:
    """The conversation without the older half of its turns: instructions and the last turn always stay.

    A body that has nothing to drop comes back as it is. Tool calls and their answers stay together.
    """
    messages: list[Any] = list(body["messages"])
    instructions = [m for m in messages if m["role"] in ("system", "developer")]
    turns = [m for m in messages if m["role"] not in ("system", "developer")]
    starts = [number for number, m in enumerate(turns) if m["role"] == "user"]
    later = [start for start in starts if start >= len(turns) / 2] or starts[-1:]
    if not later or later[0] == 0:
        return body
    return {**body, "messages": [*instructions, *turns[later[0] :]]}
