"""The kinds of incidents: what each is called, what it means, and what helps. runbook.md has a row for each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    COLD = "cold"  # no route is open
    ROUTE_OPEN = "route_open"  # routes of one provider are
    CREDENTIALS = "credentials"  # a key, a credit or a model's name is refused
    BUDGET = "budget"  # paused by the budget
    SPEND = "spend"  # an alert threshold of a budget
    CAPPED = "capped"  # a cap of a month is used up, and jobs wait for it
    PAUSED = "paused"  # by a person
    DEAD_LETTERS = "dead_letters"
    LATE = "late"  # jobs past the time that was promised
    DEGRADED = "degraded"  # answers in a reduced form
    CRASH_LOOP = "crash_loop"
    WORKER_GONE = "worker_gone"
    REDIS_UNSAFE = "redis_unsafe"


@dataclass(frozen=True)
class KindInfo:
    """What is always so of a kind. `message`: the client message that it calls for (policies/messages/). `notice`: told once,
    and over without a word."""

    title: str
    means: str
    commands: tuple[str, ...]
    message: str = ""
    notice: bool = False


def key_of(kind: Kind, subject: str, queue: str) -> str:
    """What there is one open incident of. Spelled by lua/incident.lua too."""
    return f"{kind}|{subject}|{queue}"


KIND_INFO = {
    Kind.COLD: KindInfo(
        "All AI providers are down",
        "No job can be answered now. They wait in the queue: none is lost or charged, and they go on by themselves.",
        ("failover status", "failover job late"),
        "extended_outage",
    ),
    Kind.ROUTE_OPEN: KindInfo(
        "AI provider is down",
        "Others answer its jobs meanwhile. It is tried again now and then, and taken back by itself.",
        ("failover status",),
        "brief_delay",
    ),
    Kind.CREDENTIALS: KindInfo(
        "Key, credit or model refused",
        "The provider answers, but refuses us. Somebody has to fix it there; it is tried again within minutes.",
        ("failover doctor", "failover status"),
        "brief_delay",
    ),
    Kind.BUDGET: KindInfo(
        "Paused by the budget",
        "No new job starts, running ones end. Nothing is lost, charged or expires until somebody resumes.",
        ("failover resume --dry-run", "failover resume --pause-again-at 95"),
        "budget_pause",
    ),
    Kind.SPEND: KindInfo(
        "Budget used",
        "Nothing has stopped. Look whether the month is on its way.",
        ("failover budget show",),
        notice=True,
    ),
    Kind.CAPPED: KindInfo(
        "Budget used up",
        "Its jobs wait: no call is made that may cost more than is left. None is lost or charged; they go on when somebody "
        "raises the cap, or with the next month.",
        ("failover budget show",),
        "budget_pause",
    ),
    Kind.PAUSED: KindInfo(
        "Paused",
        "No new job starts where it is paused, running ones end. Nothing is lost, charged or expires.",
        ("failover resume --dry-run", "failover resume"),
        "budget_pause",
    ),
    Kind.DEAD_LETTERS: KindInfo(
        "Dead letters",
        "These jobs ended without an answer. They are kept until somebody requeues, answers or discards them.",
        ("failover dlq stats", "failover dlq list", "failover dlq requeue --all --dry-run", "failover review list"),
        "dead_letter",
    ),
    Kind.LATE: KindInfo(
        "Jobs are late",
        "Clients wait for longer than they were promised.",
        ("failover job late", "failover review list"),
        "brief_delay",
    ),
    Kind.DEGRADED: KindInfo(
        "Answers are degraded",
        "These jobs were late, and are answered in the reduced form that their policy allows: a smaller model, less context.",
        ("failover status",),
        "service_degradation",
    ),
    Kind.CRASH_LOOP: KindInfo(
        "Workers crash again and again",
        "Their jobs return to the queue; one that was hit three times is a dead letter. Look at the workers' last lines.",
        ("failover status", "failover dlq list --reason crashed"),
    ),
    Kind.WORKER_GONE: KindInfo(
        "Worker vanished",
        "It was killed, or lost its Redis. Its jobs went back to the head of the queue.",
        ("failover status",),
    ),
    Kind.REDIS_UNSAFE: KindInfo("Redis can lose jobs", "Fix it before it does.", ("failover doctor",)),
}

COUNTED = (Kind.DEAD_LETTERS, Kind.DEGRADED)  # opened by what jobs tell, over when they fall silent
OUTAGES = (Kind.COLD, Kind.ROUTE_OPEN, Kind.CREDENTIALS, Kind.BUDGET, Kind.PAUSED, Kind.CAPPED)  # why jobs may be late
