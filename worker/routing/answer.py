"""How an execution's way through its candidates ended, and what an answer says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from producer.answer_text import text_in
from worker.breakers.shared import Withheld
from worker.errors.catalog import Failure
from worker.errors.classify import Broken, Reply
from worker.errors.endings import Ending, worst_ending
from worker.queue.waiting import Waiting
from worker.routes.route import Route


@dataclass(frozen=True)
class Answer:
    """A route answered. `hops` counts the routes left behind after a failed attempt."""

    route: Route
    completion: dict[str, Any]
    hops: int


@dataclass(frozen=True)
class HeldBack:
    """The ledger let no call go out. `seconds`: until it is worth asking again."""

    waiting: Waiting
    seconds: float


@dataclass(frozen=True)
class Unanswered:
    """No route answered. `failures`: the last one of each route that was called, in order; empty when none could be called.

    `opens_in`: seconds until the first candidate may be called again, None when one may be called at once. `passed_over`:
    the same for those that let nothing through (a breaker, a cooldown, a tenant's parked keys), None when every candidate
    was called. `withheld`: why operators keep jobs from a route that was not called. `others_may`: other tenants' jobs may
    go where this one could not. `closed`: why each route that let nothing through did not, in words; `withheld_subjects`:
    those of them that operators closed. `held_back`: for want of money. `local`: the trouble of this worker's
    own machine that kept a route from being called, in words.
    """

    failures: tuple[Failure, ...]
    opens_in: float | None
    passed_over: float | None = None
    withheld: Withheld | None = None
    others_may: bool = False
    closed: str = ""
    withheld_subjects: tuple[str, ...] = ()
    held_back: HeldBack | None = None
    local: str = ""


def note_of(answer: Reply | Broken | None) -> str:
    """What was odd about a good answer."""
    if not isinstance(answer, Reply):
        return ""
    ending = worst_ending(answer.body["choices"])
    odd = {Ending.CUT: "cut at a limit of tokens", Ending.UNNAMED: "it ended without a finish_reason"}.get(ending, "")
    return "; ".join(filter(None, (answer.note, odd)))


def first_token_at(answer: Reply | Broken | None) -> float | None:
    """When the first token of a streamed answer came, on the monotonic clock."""
    return answer.first_token_at if isinstance(answer, Reply) else None


def truncated(completion: Mapping[str, Any]) -> bool:
    """Whether an answer ended at its limit of tokens and not by itself."""
    return worst_ending(completion["choices"]) is Ending.CUT


def usage_of(answer: Reply | Broken) -> Mapping[str, Any] | None:
    """What the provider says that it billed, also for an answer that cannot be used."""
    body = answer.body if isinstance(answer, Reply) else None
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(usage, dict):
        return None
    if usage.get("completion_tokens") == 0 and body.get("choices") and text_in(_content_of(body)):
        return None  # it cannot be
    tier = body.get("service_tier")  # OpenAI names it beside the usage
    return {"service_tier": tier, **usage} if isinstance(tier, str) else usage


def _content_of(body: Mapping[str, Any]) -> Any:
    try:
        return body["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        return None
