"""The kinds of incidents: their titles, their meaning, and the commands that help. runbook.md has a row for each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    COLD = "cold"  # no route can be used
    REFUSED = "refused"  # no route can be used, because every provider refuses key, credit or model
    ROUTE_OPEN = "route_open"  # the breakers of one provider's routes are open
    CREDENTIALS = "credentials"  # a provider refuses the key, the credit or the model's name
    BUDGET = "budget"  # paused by the budget
    SPEND = "spend"  # a budget reached an alert threshold
    CAPPED = "capped"  # a month's cap is used up, and jobs wait
    PAUSED = "paused"  # by a person
    DEAD_LETTERS = "dead_letters"
    LATE = "late"  # jobs past their promised time
    FLOOD = "flood"  # most of the waiting jobs belong to one tenant
    DEGRADED = "degraded"  # answers in a reduced form
    CRASH_LOOP = "crash_loop"
    WORKER_GONE = "worker_gone"
    NO_WORKERS = "no_workers"  # jobs wait, and no worker runs
    LOST = "lost"  # jobs left the queue without an outcome
    REDIS_UNSAFE = "redis_unsafe"
    REDIS_FULL = "redis_full"  # much of its maxmemory is used
    REDIS_UNWRITABLE = "redis_unwritable"  # it refuses every write, because it cannot write to its disk
    SLO_SUCCESS = "slo_success"  # of policies/slo.yaml: fewer requests succeed than promised
    SLO_LATENCY = "slo_latency"  # answers take longer
    SLO_COST = "slo_cost"  # requests cost more
    SLO_BURN = "slo_burn"  # the error budget is spent too fast
    SLO_BUDGET = "slo_budget"  # much of the month's error budget is spent early


@dataclass(frozen=True)
class KindInfo:
    """The fixed texts of a kind. `message`: the client message to send (policies/messages/). `notice`: one message is sent
    when it opens, and none when it closes."""

    title: str
    means: str
    commands: tuple[str, ...]
    message: str = ""
    notice: bool = False


def key_of(kind: Kind, subject: str, queue: str) -> str:
    """The key of an open incident; at most one exists for each key. lua/incident.lua builds the same key."""
    return f"{kind}|{subject}|{queue}"


KIND_INFO = {
    Kind.COLD: KindInfo(
        "All AI providers are down",
        "No job can be answered now. Jobs wait in the queue: none is lost or charged, and they continue automatically.",
        ("failover status", "failover job late"),
        "extended_outage",
    ),
    Kind.REFUSED: KindInfo(
        "Every provider refuses us",
        "No job can be answered until somebody fixes the key or the credit. Jobs wait in the queue: none is lost or charged.",
        ("failover doctor", "failover status"),
        "extended_outage",
    ),
    Kind.ROUTE_OPEN: KindInfo(
        "AI provider is down",
        "Other routes answer its jobs. A probe tests it after each cooldown, and it is used again automatically.",
        ("failover status",),
        "brief_delay",
    ),
    Kind.CREDENTIALS: KindInfo(
        "Key, credit or model refused",
        "The provider answers, but refuses our requests. Somebody has to fix it there; a probe follows within minutes.",
        ("failover doctor", "failover status"),
        "brief_delay",
    ),
    Kind.BUDGET: KindInfo(
        "Paused by the budget",
        "No new job starts; running jobs end. Nothing is lost or charged, and no job expires until somebody resumes.",
        (),
        "budget_pause",
    ),
    Kind.SPEND: KindInfo(
        "Budget used",
        "Nothing has stopped. Check whether the rest of the budget is enough for this month.",
        ("failover budget show",),
        notice=True,
    ),
    Kind.CAPPED: KindInfo(
        "Budget used up",
        "Its jobs wait: a call that may cost more than the rest of the cap is not made. None is lost or charged; they "
        "continue when somebody raises the cap, or next month.",
        ("failover budget show",),
        "budget_pause",
    ),
    Kind.PAUSED: KindInfo(
        "Paused",
        "No new job starts in the paused part; running jobs end. Nothing is lost or charged, and no job expires.",
        (),
        "budget_pause",
    ),
    Kind.DEAD_LETTERS: KindInfo(
        "Dead letters",
        "These jobs ended without an answer. They are kept until somebody requeues, resolves or discards them.",
        ("failover dlq stats", "failover dlq list", "failover dlq requeue --all --dry-run", "failover review list"),
        "dead_letter",
    ),
    Kind.LATE: KindInfo(
        "Jobs are late",
        "Clients wait longer than promised.",
        ("failover job late", "failover review list"),
        "brief_delay",
    ),
    Kind.FLOOD: KindInfo(
        "One client fills the queue",
        "Other clients' jobs take turns with these, so they are not stuck behind them. But each job costs money: ask the "
        "client whether it is meant.",
        (),
    ),
    Kind.DEGRADED: KindInfo(
        "Answers are degraded",
        "These jobs were late. They are answered in the reduced form that their policy allows: a smaller model, less context.",
        ("failover status",),
        "service_degradation",
    ),
    Kind.CRASH_LOOP: KindInfo(
        "Workers crash repeatedly",
        "Their jobs return to the queue; after three crashes a job is a dead letter. Read the workers' last log lines.",
        ("failover status", "failover dlq list --reason crashed"),
    ),
    Kind.WORKER_GONE: KindInfo(
        "Worker vanished",
        "It was killed, or lost its connection to Redis. Its jobs went back to the head of the queue.",
        ("failover status",),
    ),
    Kind.NO_WORKERS: KindInfo(
        "No worker runs",
        "Nothing is executed. Jobs wait in the queue: none is lost or charged, and they continue when a worker starts.",
        ("failover status", "failover-worker"),
        "extended_outage",
    ),
    Kind.LOST: KindInfo(
        "Jobs are lost",
        "Another tool deleted or overwrote their data in Redis. They have no answer and will get none: hand them in again.",
        ("failover dlq list --lost", "failover dlq discard --lost"),
    ),
    Kind.REDIS_UNSAFE: KindInfo("Redis can lose jobs", "Fix it before jobs are lost.", ("failover doctor",)),
    Kind.REDIS_FULL: KindInfo(
        "Redis is nearly full",
        "At 95% no new job is accepted: clients get an error and try again later. Accepted jobs go on, and none is lost.",
        ("failover status",),
    ),
    Kind.REDIS_UNWRITABLE: KindInfo(
        "Redis refuses every write",
        "It cannot write to its own disk, which is full or broken. No job is accepted, started or ended; accepted jobs stay in "
        "Redis, and continue automatically when it can write again. A running call may be made and paid twice.",
        ("failover doctor",),
    ),
    Kind.SLO_SUCCESS: KindInfo(
        "Success is under its target",
        "Fewer requests get their answer in time than clients were promised.",
        ("failover status",),
    ),
    Kind.SLO_LATENCY: KindInfo(
        "Answers take longer than promised", "No answer is lost: they come later.", ("failover status",)
    ),
    Kind.SLO_COST: KindInfo(
        "Requests cost more than their target",
        "Nothing has stopped. Caps hold as before.",
        ("failover budget show", "failover budget reduce"),
    ),
    Kind.SLO_BURN: KindInfo(
        "The error budget is spent too fast",
        "If it goes on, more requests fail in this window than clients were promised.",
        ("failover status",),
    ),
    Kind.SLO_BUDGET: KindInfo(
        "Much of the month's error budget is spent",
        "More requests failed this month than planned until today. Nothing is broken now because of it.",
        ("failover review-month", "failover budget reduce"),
    ),
}

COUNTED = (Kind.DEAD_LETTERS, Kind.DEGRADED)  # opened by counted jobs; closed when no new one is counted for a while
OBJECTIVES = (Kind.SLO_SUCCESS, Kind.SLO_LATENCY, Kind.SLO_COST, Kind.SLO_BURN, Kind.SLO_BUDGET)
# reasons why jobs may be late
OUTAGES = (
    Kind.NO_WORKERS,
    Kind.COLD,
    Kind.REFUSED,
    Kind.ROUTE_OPEN,
    Kind.CREDENTIALS,
    Kind.BUDGET,
    Kind.PAUSED,
    Kind.CAPPED,
)
