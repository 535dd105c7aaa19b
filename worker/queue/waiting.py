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
        if self.reason is WaitReason.BUDGET and not self.subjects:
            return f"budget: {self.detail}"
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
    WaitReason.ROUTE: "an open route{also}",
    WaitReason.PAUSED_ROUTE: "a paused route: {detail}",
    WaitReason.ABLE_ROUTE: "a route that supports it{also}",
    WaitReason.SLOW_ROUTE: "a route that is fast enough for its policy{also}",
    WaitReason.PINNED_ROUTE: "the route that its policy pins{also}",
    WaitReason.BUDGET: "budget: {subject} has {left} left this month, {call}; "
    "`failover budget set {subject} --hard USD` raises the cap",
    WaitReason.BUDGET_RESERVED: "budget: the rest of the budget of {subject} is reserved by running calls, {call}",
    WaitReason.RATE_LIMIT: "{subject} is at its limit",
    WaitReason.TOKENS: "{subject}: its tokens of this minute are used up",
    WaitReason.REDIS: "Redis: while it is away, caps and limits cannot be enforced",
    WaitReason.LEDGER: "the ledger: it holds data that cannot be read, the worker's log names it",
    WaitReason.LOCAL: "this worker's machine: {detail}",
    WaitReason.NEWER_WORKER: "a newer worker: {detail}",
}
