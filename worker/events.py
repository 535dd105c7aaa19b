"""What happens in a worker, as one type of event: the seam for logs, notifications, metrics, traces and history.

An event is emitted once, where it happens; whoever wants to know subscribes. docs/hooks.md lists the fields of each kind.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

log = logging.getLogger("failover.worker")


class EventKind(StrEnum):
    """A closed set."""

    CLAIMED = "claimed"
    ATTEMPTED = "attempted"  # one call to a provider ended
    FAILED_OVER = "failed over"  # a route failed, and the next one is tried
    SPENT = "spent"  # a row of the ledger was closed
    DONE = "done"
    RETRIED = "retry"
    PARKED = "parked"
    DEAD = "dead"
    RELEASED = "released"
    FENCED = "fenced"  # the lease was somebody else's: the outcome changed nothing
    PAUSED = "paused"
    RESUMED = "resumed"
    BREAKER = "breaker"  # a route's breaker opened or closed


@dataclass(frozen=True, slots=True)
class Event:
    """`job_id` is empty for what concerns no single job. `at`: Unix seconds of this worker. `facts`: plain values, as
    documented."""

    kind: EventKind
    job_id: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    at: float = field(default_factory=time.time)


Hook = Callable[[Event], None]


class Hooks:
    """The subscribers of one worker. A hook runs on the worker's loop, so it must be quick, and never block."""

    def __init__(self) -> None:
        self._hooks: dict[EventKind, list[Hook]] = {}
        self._broken: set[int] = set()  # hooks that raised, by id: each is logged once

    def subscribe(self, hook: Hook, kinds: Collection[EventKind] = tuple(EventKind)) -> None:
        """Call `hook` with every event of these kinds, from now on."""
        for kind in kinds:
            self._hooks.setdefault(kind, []).append(hook)

    def wants(self, kind: EventKind) -> bool:
        """Whether anybody subscribed: facts that cost time are gathered only then."""
        return kind in self._hooks

    def emit(self, event: Event) -> None:
        """Tell every subscriber. One that raises harms neither the job nor the other subscribers."""
        for hook in self._hooks.get(event.kind, ()):
            try:
                hook(event)
            except Exception:
                if id(hook) not in self._broken:
                    self._broken.add(id(hook))
                    log.exception("a hook failed, its later failures are not logged", extra={"kind": str(event.kind)})
