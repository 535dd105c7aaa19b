"""One route's breaker as one worker sees it: its view of what stands in Redis, and what its own attempts showed."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from producer.trail import RejectedFor
from worker.breakers.local import Admission, RouteBreaker

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


class Owner(Protocol):
    """All breakers of a worker (registry.py)."""

    alone: bool  # Redis is away: each breaker decides by itself
    changed: Callable[[], None]

    async def reserve(self, breakers: Sequence[SharedBreaker] | None = None) -> None: ...
    def report_soon(self, *, at_once: bool) -> None: ...


@dataclass
class SharedBreaker:
    """One route's breaker as this worker sees it."""

    route: str
    owner: Owner
    local: RouteBreaker
    withheld: str = ""  # why operators keep everybody from the route
    disabled: bool = False  # ... for good, by its kill switch: no job waits for it
    view: View = field(default_factory=View)
    reserved: Admission | None = None  # leave to probe that no attempt has used yet
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
            return RejectedFor.DISABLED if self.disabled else RejectedFor.PAUSED, self.withheld
        if self.owner.alone:
            return RejectedFor.RESTS if self.local.resting else RejectedFor.BREAKER, self.local.closed_off()
        if (rests := self.view.rests_until - time.monotonic()) > 0:
            return RejectedFor.RESTS, f"{self.view.rests_for} for {rests:.0f} s"
        half_open = self.state == "half-open"
        return RejectedFor.BREAKER, "breaker half-open, its probe under way" if half_open else "breaker open"

    async def admit(self, *, regardless: bool = False) -> Admission | None:
        """Leave for one attempt, or None: the route rests, is open, or half-open with a probe under way somewhere, withheld.

        `regardless` of how the breaker stands: only what operators withhold is not let through.
        """
        if self.withheld:
            return None
        if regardless:
            return Admission(self.view.epoch, probe=False)
        if self.owner.alone:
            return self.local.admit()
        if self.open_for_all():
            return Admission(self.view.epoch, probe=False)
        if self.due() and not self.asking:
            await self.owner.reserve([self])
            if self.open_for_all():
                return await self.admit()
        admission, self.reserved = self.reserved, None
        if admission is not None:
            self.probes.add(admission.token)
        return admission

    def record(
        self,
        admission: Admission,
        succeeded: bool | None,
        *,
        ms: int = 0,
        job: str = "",
        rest: float = 0.0,
        why: str = "",
    ) -> None:
        """What the admitted attempt showed; None is neutral. `rest`: seconds for which nobody should call the route.

        Every admission is recorded exactly once.
        """
        self.probes.discard(admission.token)
        if self.owner.alone:
            self.local.record(admission, succeeded)
            if rest:
                self.local.rest(rest, why)
            return
        kind: Kind = "neutral" if succeeded is None else "ok" if succeeded else "failed"
        self._observe(kind, admission, ms=ms, job=job, rest=rest, why=why)

    def rest(self, seconds: float, why: str) -> None:
        """Call the route for nobody for `seconds`: its account has to be mended first."""
        if self.owner.alone:
            self.local.rest(seconds, why)
        else:
            self._observe("neutral", Admission(self.view.epoch, probe=False), rest=seconds, why=why)

    def forgo(self) -> None:
        """Give leave to probe back unused."""
        if self.reserved is not None:
            admission, self.reserved = self.reserved, None
            self._observe("unused", admission)

    def _observe(
        self, kind: Kind, admission: Admission, *, ms: int = 0, job: str = "", rest: float = 0.0, why: str = ""
    ) -> None:
        until = time.monotonic() + rest
        if until > self.view.rests_until and rest:
            self.view = replace(self.view, rests_until=until, rests_for=why)  # at once here, elsewhere with the report
        self.unreported.append(
            {
                "kind": kind,
                "epoch": admission.epoch,
                "probe": admission.token,
                "job": job,
                "ms": ms,
                "rest": math.ceil(rest * 1000),
                "why": why,
            }
        )
        self.owner.report_soon(at_once=kind != "ok" or admission.probe)

    def hear(self, told: Mapping[str, Any], *, newest: bool) -> None:
        """A report's reply is the newest by its nature; a published change may come after one that is newer."""
        view = View.heard(told, time.monotonic())
        if not newest and view.version <= self.view.version:
            return
        if any(seen["rest"] for seen in self.unreported):  # Redis has not heard of it yet
            view = replace(view, rests_until=self.view.rests_until, rests_for=self.view.rests_for)
        was_open = self.open_for_all()
        self.view = view
        if self.open_for_all() != was_open:
            self.owner.changed()
