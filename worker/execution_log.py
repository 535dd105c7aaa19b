"""The worker's log of what happened: a subscriber that writes one line for each outcome, pause and breaker change."""

from __future__ import annotations

import logging

from worker.events import Event, EventKind, Hooks

log = logging.getLogger("failover.worker")

LOGGED = (
    EventKind.DONE,
    EventKind.RETRIED,
    EventKind.PARKED,
    EventKind.DEAD,
    EventKind.RELEASED,
    EventKind.FENCED,
    EventKind.PAUSED,
    EventKind.RESUMED,
)
_WARNINGS = frozenset({EventKind.DEAD, EventKind.FENCED, EventKind.PAUSED, EventKind.RESUMED})


def subscribe(hooks: Hooks) -> None:
    hooks.subscribe(write, LOGGED)


def write(event: Event) -> None:
    """Write one log line: the kind is the text, the job and the facts are the fields."""
    level = logging.WARNING if event.kind in _WARNINGS else logging.INFO
    job = {"job": event.job_id} if event.job_id else {}
    log.log(level, str(event.kind), extra={**job, **event.facts})
