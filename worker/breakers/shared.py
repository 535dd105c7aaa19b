"""One route's breaker as one worker sees it: its view of what stands in Redis, and what its own attempts showed."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Protocol

from producer.trail import RejectedFor
from worker.breakers.local import Permit, RouteBreaker
from worker.events import Event, EventKind, Hooks

WITHHELD_SECONDS = 5.0  # after which a job that has no other route looks again

Kind = Literal["ok", "failed", "neutral", "unused"]


@dataclass(frozen=True)
class View:
    """How a route's breaker stood when this worker last heard of it. Times by the worker's monotonic clock."""

    version: int = 0
    epoch: int = 0
    state: str = "closed"
    opens_at: float = -math.inf
    probe: str = ""
    probe_until: float = -math.inf
    rests_until: float = -math.inf
    rests_for: str = ""

    @classmethod
    def heard(cls, told: Mapping[str, Any], now: float) -> View:
        return cls(
            version=int(told["version"]),
            epoch=int(told["epoch"]),
            state=told["state"],
            opens_at=now + told["opens_in"] / 1000,
            probe=told["probe"],
            probe_until=now + told["probe_in"] / 1000 if told["probe"] else -math.inf,
            rests_until=now + told["rests_in"] / 1000,
            rests_for=told["rests_for"],
        )


class WithheldBy(StrEnum):
    """Who keeps every job from a route."""

    PAUSE = "pause"  # its provider is paused
    KILL_SWITCH = "kill_switch"  # the route is disabled
    MAP = "map"  # it is no longer in routes.json


@dataclass(frozen=True)
class Withheld:
    """A route that operators keep every job from. `name`: of the provider that is paused, or of the route."""

    by: WithheldBy
    name: str

    @property
    def for_good(self) -> bool:
        """Whether no job waits for it."""
        return self.by is not WithheldBy.PAUSE

    @property
    def subject(self) -> str:
        """As jobs that wait for it name it (worker/queue/waiting.py)."""
        return f"{'provider' if self.by is WithheldBy.PAUSE else 'route'}:{self.name}"

    def __str__(self) -> str:
        match self.by:
            case WithheldBy.PAUSE:
                return f"provider {self.name} is paused"
            case WithheldBy.KILL_SWITCH:
                return f"route {self.name} is disabled"
            case WithheldBy.MAP:
                return "no longer in routes.json"


class Owner(Protocol):
    """All breakers of a worker (registry.py)."""

    alone: bool  # Redis is away: each breaker decides by itself
    changed: Callable[[], None]
    hooks: Hooks

    async def reserve(self, breakers: Sequence[SharedBreaker] | None = None) -> None: ...
    def report_soon(self, *, at_once: bool) -> None: ...


@dataclass
class SharedBreaker:
    """One route's breaker as this worker sees it."""

    route: str
    owner: Owner
    local: RouteBreaker
    withheld: Withheld | None = None
    view: View = field(default_factory=View)
    reserved: Permit | None = None  # leave to probe that no attempt has used yet
    reserved_at: float = -math.inf
    probes: set[str] = field(default_factory=set)  # tokens of our probes under way
    asking: bool = False
    unreported: deque[dict[str, Any]] = field(default_factory=deque)

    def open_for_all(self) -> bool:
        """Whether any number of attempts would be admitted now."""
        if self.withheld:
            return False
        if self.owner.alone:
            return self.local.open_for_all()
        return self.view.state == "closed" and self.view.rests_until <= time.monotonic()

    @property
    def state(self) -> str:
        """closed | open | half-open."""
        if self.owner.alone:
            return self.local.state
        return "half-open" if self.view.state == "open" and self.view.opens_at <= time.monotonic() else self.view.state

    @property
    def probing(self) -> bool:
        """Whether a probe of this worker is under way."""
        return self.local.probing if self.owner.alone else bool(self.probes)

    def may_probe(self) -> bool:
        """Whether this worker holds leave for one attempt that is not made yet."""
        if self.withheld:
            return False
        return self.local.may_probe() if self.owner.alone else self.reserved is not None

    def due(self) -> bool:
        """Whether it is worth asking for leave to probe."""
        return not self.owner.alone and self.reserved is None and not self.open_for_all() and self.reopens_in() <= 0

    def reopens_in(self) -> float:
        """Seconds until an attempt may be made, as far as is known; 0 when one may be made now."""
        if self.withheld:
            return WITHHELD_SECONDS
        if self.owner.alone:
            return self.local.reopens_in()
        if self.reserved is not None:
            return 0.0
        now = time.monotonic()
        opens = max(self.view.opens_at, self.view.probe_until) if self.view.state == "open" else -math.inf
        return max(0.0, opens - now, self.view.rests_until - now)

    def closed_off(self) -> tuple[RejectedFor, str]:
        """Why no attempt is admitted now."""
        if self.withheld:
            return RejectedFor.DISABLED if self.withheld.for_good else RejectedFor.PAUSED, str(self.withheld)
        if self.owner.alone:
            return RejectedFor.RESTS if self.local.resting else RejectedFor.BREAKER, self.local.closed_off()
        if (rests := self.view.rests_until - time.monotonic()) > 0:
            return RejectedFor.RESTS, f"{self.view.rests_for} for {rests:.0f} s"
        half_open = self.state == "half-open"
        return RejectedFor.BREAKER, "breaker half-open, its probe under way" if half_open else "breaker open"

    async def admit(self, *, regardless: bool = False) -> Permit | None:
        """Leave for one attempt, or None: the route rests, is open, or half-open with a probe under way somewhere, withheld.

        `regardless` of how the breaker stands: only what operators withhold is not let through.
        """
        if self.withheld:
            return None
        if regardless:
            return Permit(self.view.epoch, probe=False)
        if self.owner.alone:
            return self.local.admit()
        if self.open_for_all():
            return Permit(self.view.epoch, probe=False)
        if self.due() and not self.asking:
            await self.owner.reserve([self])
            if self.open_for_all():
                return await self.admit()
        permit, self.reserved = self.reserved, None
        if permit is not None:
            self.probes.add(permit.token)
        return permit

    def record(
        self,
        permit: Permit,
        succeeded: bool | None,
        *,
        ms: int = 0,
        job: str = "",
        rest: float = 0.0,
        why: str = "",
    ) -> None:
        """What the admitted attempt showed; None is neutral. `rest`: seconds for which nobody should call the route.

        Every permit is recorded exactly once.
        """
        self.probes.discard(permit.token)
        if self.owner.alone:
            self.local.record(permit, succeeded)
            if rest:
                self.local.rest(rest, why)
            return
        kind: Kind = "neutral" if succeeded is None else "ok" if succeeded else "failed"
        self._observe(kind, permit, ms=ms, job=job, rest=rest, why=why)

    def rest(self, seconds: float, why: str) -> None:
        """Call the route for nobody for `seconds`: its account has to be fixed first."""
        if self.owner.alone:
            self.local.rest(seconds, why)
        else:
            self._observe("neutral", Permit(self.view.epoch, probe=False), rest=seconds, why=why)

    def forgo(self) -> None:
        """Give leave to probe back unused."""
        if self.reserved is not None:
            permit, self.reserved = self.reserved, None
            self._observe("unused", permit)

    def _observe(
        self, kind: Kind, permit: Permit, *, ms: int = 0, job: str = "", rest: float = 0.0, why: str = ""
    ) -> None:
        until = time.monotonic() + rest
        if until > self.view.rests_until and rest:
            self.view = replace(self.view, rests_until=until, rests_for=why)  # at once here, elsewhere with the report
        self.unreported.append(
            {
                "kind": kind,
                "epoch": permit.epoch,
                "probe": permit.token,
                "job": job,
                "ms": ms,
                "rest": math.ceil(rest * 1000),
                "why": why,
            }
        )
        self.owner.report_soon(at_once=kind != "ok" or permit.probe)

    def hear(self, told: Mapping[str, Any], *, newest: bool) -> None:
        """A report's reply is the newest by its nature; a published change may come after one that is newer."""
        view = View.heard(told, time.monotonic())
        if not newest and view.version <= self.view.version:
            return
        if any(seen["rest"] for seen in self.unreported):  # Redis has not heard of it yet
            view = replace(view, rests_until=self.view.rests_until, rests_for=self.view.rests_for)
        was_open, before = self.open_for_all(), self.view.state
        self.view = view
        if view.state != before:
            facts = {
                "route": self.route,
                "state": view.state,
                "cooldown_seconds": max(0.0, view.opens_at - time.monotonic()),
            }
            self.owner.hooks.emit(Event(EventKind.BREAKER, "", facts))
        if self.open_for_all() != was_open:
            self.owner.changed()
