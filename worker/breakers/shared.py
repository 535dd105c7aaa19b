"""One worker's side of a shared breaker: its view of the state in Redis, and the results that it has not reported yet."""

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

WITHHELD_SECONDS = 5.0  # a job that has no other route looks again after it

Kind = Literal["ok", "failed", "neutral", "unused"]


@dataclass(frozen=True)
class View:
    """The last known state of a route's breaker; fields as in lua/breaker.lua. Times: of the worker's monotonic clock."""

    version: int = 0
    epoch: int = 0
    state: str = "closed"
    opens_at: float = -math.inf
    probe: str = ""
    probe_until: float = -math.inf
    rests_until: float = -math.inf
    rests_for: str = ""

    @classmethod
    def heard(cls, fields: Mapping[str, Any], now: float) -> View:
        """From the JSON of lua/breaker.lua, whose times are milliseconds from now."""
        return cls(
            version=int(fields["version"]),
            epoch=int(fields["epoch"]),
            state=fields["state"],
            opens_at=now + fields["opens_in"] / 1000,
            probe=fields["probe"],
            probe_until=now + fields["probe_in"] / 1000 if fields["probe"] else -math.inf,
            rests_until=now + fields["rests_in"] / 1000,
            rests_for=fields["rests_for"],
        )


class WithheldBy(StrEnum):
    """What keeps every job from a route."""

    PAUSE = "pause"  # its provider is paused
    KILL_SWITCH = "kill_switch"  # the route is disabled
    MAP = "map"  # it is no longer in routes.json


@dataclass(frozen=True)
class Withheld:
    """Why operators withhold a route from every job. `name`: of the paused provider, or of the route."""

    by: WithheldBy
    name: str

    @property
    def for_good(self) -> bool:
        """Whether no job should wait for the route: only a pause is expected to end."""
        return self.by is not WithheldBy.PAUSE

    @property
    def subject(self) -> str:
        """The subject that a waiting job records (worker/queue/waiting.py)."""
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
    """The breakers of a worker, as one of them sees it (implemented in registry.py)."""

    alone: bool  # Redis is away: each breaker decides by itself
    changed: Callable[[], None]
    hooks: Hooks

    async def reserve(self, breakers: Sequence[SharedBreaker] | None = None) -> None: ...
    def report_soon(self, *, at_once: bool) -> None: ...


@dataclass
class SharedBreaker:
    """One worker's side of a route's shared breaker."""

    route: str
    owner: Owner
    local: RouteBreaker
    withheld: Withheld | None = None
    view: View = field(default_factory=View)
    reserved: Permit | None = None  # a probe permit that no attempt has used yet
    reserved_at: float = -math.inf
    probes: set[str] = field(default_factory=set)  # tokens of this worker's probes under way
    asking: bool = False  # Redis is being asked for a probe permit
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
        """Whether this worker holds an unused permit for one probe."""
        if self.withheld:
            return False
        return self.local.may_probe() if self.owner.alone else self.reserved is not None

    def due(self) -> bool:
        """Whether to ask Redis for a probe permit now."""
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
        """Why no attempt is admitted now: the code, and text for people."""
        if self.withheld:
            return RejectedFor.DISABLED if self.withheld.for_good else RejectedFor.PAUSED, str(self.withheld)
        if self.owner.alone:
            return RejectedFor.RESTS if self.local.resting else RejectedFor.BREAKER, self.local.closed_off()
        if (rests := self.view.rests_until - time.monotonic()) > 0:
            return RejectedFor.RESTS, f"{self.view.rests_for} for {rests:.0f} s"
        half_open = self.state == "half-open"
        return RejectedFor.BREAKER, "breaker half-open, a probe is running" if half_open else "breaker open"

    async def admit(self, *, regardless: bool = False) -> Permit | None:
        """A permit for one attempt. None: the route is withheld, cooling down, open, or half-open with a probe under way.

        `regardless`: ignore the breaker and the cooldown; None only if operators withhold the route.
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
        """Record the result of an admitted attempt; None is neutral. `ms`: its latency. `rest`: seconds of route cooldown
        that it asks for, and `why`. Every permit must be recorded exactly once."""
        self.probes.discard(permit.token)
        if self.owner.alone:
            self.local.record(permit, succeeded)
            if rest:
                self.local.rest(rest, why)
            return
        kind: Kind = "neutral" if succeeded is None else "ok" if succeeded else "failed"
        self._observe(kind, permit, ms=ms, job=job, rest=rest, why=why)

    def rest(self, seconds: float, why: str) -> None:
        """Start a route cooldown of `seconds`: its account has to be fixed first."""
        if self.owner.alone:
            self.local.rest(seconds, why)
        else:
            self._observe("neutral", Permit(self.view.epoch, probe=False), rest=seconds, why=why)

    def forgo(self) -> None:
        """Give an unused probe permit back."""
        if self.reserved is not None:
            permit, self.reserved = self.reserved, None
            self._observe("unused", permit)

    def _observe(
        self, kind: Kind, permit: Permit, *, ms: int = 0, job: str = "", rest: float = 0.0, why: str = ""
    ) -> None:
        until = time.monotonic() + rest
        if until > self.view.rests_until and rest:
            # At once in this worker; the other workers learn of it by the report.
            self.view = replace(self.view, rests_until=until, rests_for=why)
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

    def hear(self, fields: Mapping[str, Any], *, newest: bool) -> None:
        """Update the view. `newest`: from a script's reply, so it cannot be outdated; a published change may be."""
        view = View.heard(fields, time.monotonic())
        if not newest and view.version <= self.view.version:
            return
        if any(seen["rest"] for seen in self.unreported):  # Redis does not know this cooldown yet: keep it
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
