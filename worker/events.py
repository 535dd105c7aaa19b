"""Events: one type for everything that happens in a worker. Logs, notifications, metrics and traces subscribe to it.

An event is emitted once, where it happens. docs/hooks.md lists the facts of each kind.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

log = logging.getLogger("failover.worker")


class EventKind(StrEnum):
    """The kinds of events: a closed set."""

    CLAIMED = "claimed"
    ATTEMPTED = "attempted"  # one call to a provider ended
    FAILED_OVER = "failed over"  # a route failed, and the next one is tried
    SPENT = "spent"  # a ledger row was closed
    DONE = "done"
    RETRIED = "retry"
    PARKED = "parked"
    DEAD = "dead"
    RELEASED = "released"
    EXECUTED = "executed"  # one execution ended, however it did: all that is known of it, for traces and metrics
    FENCED = "fenced"  # the execution no longer held the lease, so its outcome changed nothing
    PAUSED = "paused"
    RESUMED = "resumed"
    BREAKER = "breaker"  # a route's breaker opened or closed


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `job_id`: "" if it concerns no single job. `facts`: plain values, as docs/hooks.md lists them. `at`: Unix
    seconds of this worker's clock."""

    kind: EventKind
    job_id: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    at: float = field(default_factory=time.time)


Hook = Callable[[Event], None]


class Hooks:
    """The subscribers of one worker. A hook runs on the worker's event loop, so it must be fast and must not block."""

    def __init__(self) -> None:
        self._hooks: dict[EventKind, list[Hook]] = {}
        self._broken: set[int] = set()  # hooks that raised, by id: each is logged once

    def subscribe(self, hook: Hook, kinds: Collection[EventKind] = tuple(EventKind)) -> None:
        """Call `hook` with every later event of these kinds."""
        for kind in kinds:
            self._hooks.setdefault(kind, []).append(hook)

    def wants(self, kind: EventKind) -> bool:
        """Whether any hook subscribed to this kind. If not, expensive facts need not be collected."""
        return kind in self._hooks

    def emit(self, event: Event) -> None:
        """Call every subscriber of the event's kind. If one raises, neither the job nor the others are affected."""
        for hook in self._hooks.get(event.kind, ()):
            try:
                hook(event)
            except Exception:
                if id(hook) not in self._broken:
                    self._broken.add(id(hook))
                    log.exception("a hook failed, its later failures are not logged", extra={"kind": str(event.kind)})
