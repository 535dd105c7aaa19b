"""Why a job waits: a reason with its facts, and the text for people that is made from them.

Programs compare `reason`, never the text.
"""

from __future__ import annotations

from dataclasses import dataclass

from producer.waiting import WaitReason
from worker.humanize import money
from worker.routes.prices import dollars

MONEY = frozenset({WaitReason.BUDGET, WaitReason.BUDGET_RESERVED})


@dataclass(frozen=True)
class Waiting:
    """Why a job waits. `subjects`: what for, as in `provider:openai`, `route:openai/gpt-4o-mini`, `tenant:acme`, without
    blanks. `detail`: more text for people. `left`: micro-dollars left of a cap; `asked`: the call's maximum cost."""

    reason: WaitReason
    subjects: tuple[str, ...] = ()
    detail: str = ""
    left: int = 0
    asked: int = 0

    @property
    def subject(self) -> str:
        return self.subjects[0] if self.subjects else ""

    def __str__(self) -> str:
        """The text that follows "waits for" in messages."""
        facts = {
            "subject": self.subject,
            "detail": self.detail,
            "also": f" ({self.detail})" if self.detail else "",
            "left": money(dollars(self.left)),
            "call": f"this call may cost {money(dollars(self.asked))}",
        }
        return _TEXTS[self.reason].format_map(facts)


_TEXTS = {
    WaitReason.RETRY: "{detail}",
    WaitReason.ROUTE: "a route to open{also}",
    WaitReason.PAUSED_ROUTE: "a paused route: {detail}",
    WaitReason.ABLE_ROUTE: "a route that may be able to{also}",
    WaitReason.SLOW_ROUTE: "a route that may take it{also}",
    WaitReason.PINNED_ROUTE: "a route that it is pinned to{also}",
    WaitReason.BUDGET: "money: {subject} has {left} left of its budget of this month, {call}; "
    "`failover budget set {subject} --hard USD` lets it go on",
    WaitReason.BUDGET_RESERVED: "money: {subject} has the rest of its budget reserved for calls that run, {call}",
    WaitReason.RATE_LIMIT: "{subject} is at its limit",
    WaitReason.TOKENS: "{subject} to have tokens enough for it in this minute",
    WaitReason.REDIS: "Redis: while it is away, no hard cap and no limit can be held",
    WaitReason.LEDGER: "the ledger, which holds what cannot be read: the worker's log names it",
    WaitReason.NEWER_WORKER: "a newer worker: {detail}",
}
