"""What may be given up when a job is late: shorter context, a smaller model, a human's answer (SOP step 1).

A job is late once it has waited longer than its policy's max_time_to_answer_seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from itertools import groupby
from typing import Any

from producer.job import ChatBody
from producer.policy import Capability
from worker.providers.json_instruction import json_instruction
from worker.routes.route import Route


def smaller_first(routes: Sequence[Route]) -> tuple[Route, ...]:
    """Each tier from its last route up: a tier lists its models from the largest to the smallest. One whose routes are drawn by
    weights says nothing of size, and stays as it is."""
    tiers = (list(tier) for _, tier in groupby(routes, key=lambda route: route.tier))
    ordered = (tier if any(route.entry.weight is not None for route in tier) else tier[::-1] for tier in tiers)
    return tuple(route for tier in ordered for route in tier)


def without(body: Mapping[str, Any], lacks: Set[Capability], able: Collection[Capability] = ()) -> Mapping[str, Any]:
    """The body for a route that lacks something: what can be asked for in words is, the rest is left out."""
    sent, words = dict(body), ""
    if "tools" in lacks:
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            sent.pop(name, None)
    if not lacks.isdisjoint({"json_mode", "json_schema"}) and (form := sent.pop("response_format", None)):
        words = json_instruction(form)
        if "json_mode" in able:
            sent["response_format"] = {"type": "json_object"}
    if words:
        sent["messages"] = instructed(sent["messages"], words)
    return sent


def instructed(messages: Sequence[Any], words: str) -> list[Any]:
    """The conversation with one more instruction, after those that it begins with."""
    leading = next((n for n, m in enumerate(messages) if m["role"] not in ("system", "developer")), len(messages))
    return [*messages[:leading], {"role": "system", "content": words}, *messages[leading:]]


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
