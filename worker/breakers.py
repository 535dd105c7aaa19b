"""The breakers of all routes, shared by all workers through Redis.

The truth is one hash a route (worker/lua/breaker.lua). A worker keeps a view of it, so that choosing a route asks nobody:
every change is published, and every second the views are read anew. What attempts showed is reported in batches, a
failure at once; only a probe asks Redis for leave. While Redis is away, each worker protects the routes with a breaker
of its own (worker/breaker.py), which starts from the last view.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import redis.asyncio
from pydantic_core import from_json, to_json
from redis.exceptions import RedisError

from producer import keyspace
from producer.scripts import Call, Script, ask_async
from worker.breaker import RULES, Admission, RouteBreaker, Rules

log = logging.getLogger("failover.worker")

_LUA = Path(__file__).parent / "lua"
ADMIT, RECORD = (Script.load(_LUA, name) for name in ("admit", "record"))

POLL_SECONDS = 1.0
REPORT_SECONDS = 0.25  # how long successes wait for company; a failure does not wait, and takes those before it along
PROBE_LEASE_SECONDS = 5.0  # held on by every poll; a killed worker's probe is free again after it
CALLS_KEPT = 200  # a route's latest, for its latency and error rate
GRACE_SECONDS = 60.0  # after a success, in which one job's own retries do not open a route
REPORTED_AT_ONCE = 1000

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


@dataclass
class SharedBreaker:
    """One route's breaker as this worker sees it."""

    route: str
    owner: Breakers
    local: RouteBreaker
    view: View = field(default_factory=View)
    reserved: Admission | None = None  # leave to probe that no attempt has used yet
    probes: set[str] = field(default_factory=set)  # tokens of our probes under way
    asking: bool = False
    unreported: deque[dict[str, Any]] = field(default_factory=deque)

    def open_for_all(self) -> bool:
        """Whether any number of attempts would be admitted now."""
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
        return self.local.may_probe() if self.owner.alone else self.reserved is not None

    def due(self) -> bool:
        """Whether it is worth asking for leave to probe."""
        return not self.owner.alone and self.reserved is None and not self.open_for_all() and self.reopens_in() <= 0

    def reopens_in(self) -> float:
        """Seconds until an attempt may be made, as far as is known; 0 when one may be made now."""
        if self.owner.alone:
            return self.local.reopens_in()
        if self.reserved is not None:
            return 0.0
        now = time.monotonic()
        opens = max(self.view.opens_at, self.view.probe_until) if self.view.state == "open" else -math.inf
        return max(0.0, opens - now, self.view.rests_until - now)

    def closed_off(self) -> str:
        """Why no attempt is admitted now."""
        if self.owner.alone:
            return self.local.closed_off()
        if (rests := self.view.rests_until - time.monotonic()) > 0:
            return f"{self.view.rests_for} for {rests:.0f} s"
        return "breaker half-open, its probe under way" if self.state == "half-open" else "breaker open"

    async def admit(self) -> Admission | None:
        """Leave for one attempt, or None: the route rests, is open, or half-open with a probe under way somewhere."""
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
        before = self.open_for_all(), self.reopens_in() <= 0
        self.view = view
        if before != (self.open_for_all(), self.reopens_in() <= 0):
            self.owner.changed()


class Breakers(dict[str, SharedBreaker]):
    """Every route's breaker by the route's name, for one worker. `changed` is called when one opens or closes."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        worker_name: str,
        routes: Sequence[str],
        rules: Rules = RULES,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__((route, SharedBreaker(route, self, RouteBreaker(rules))) for route in routes)
        self.rules, self.changed = rules, changed
        self.alone = False  # Redis is away: each breaker decides by itself
        self._client, self._worker = client, worker_name
        self._report: Call | None = None  # sent, and not answered yet
        self._number = 0
        self._kick = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Report and poll for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._kick.wait()
                await asyncio.sleep(0)  # failures of the same moment go together
            self._kick.clear()
            await self.sync()
            if self.alone:
                await asyncio.sleep(POLL_SECONDS)

    async def sync(self) -> None:
        """One report, and every view anew. Redis trouble leaves each breaker to itself until the next one."""
        if self._report is None:
            self._number += 1
            self._report = self._call()
        try:
            (reply,) = await ask_async(self._client, [self._report])
        except RedisError as error:
            self._go_alone(error)
            return
        self._report = None
        if self.alone:
            log.info("breakers are shared again")
            self.alone = False
        for raw in reply:
            told = from_json(raw)
            self[told["route"]].hear(told, newest=True)
        if any(breaker.unreported for breaker in self.values()):
            self.report_soon(at_once=False)

    def heard(self, message: bytes) -> None:
        """A published change."""
        told = from_json(message)
        if not self.alone and (breaker := self.get(told["route"])) is not None:
            breaker.hear(told, newest=False)

    def report_soon(self, *, at_once: bool) -> None:
        if at_once:
            self._kick.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._due)

    def _due(self) -> None:
        self._timer = None
        self._kick.set()

    async def reserve(self, breakers: Sequence[SharedBreaker] | None = None) -> None:
        """Ask for leave to probe wherever it may be given now; whether it was stands in `may_probe`."""
        asked = [breaker for breaker in (breakers or self.values()) if breaker.due() and not breaker.asking]
        if not asked:
            return
        tokens = [uuid4().hex for _ in asked]
        lease_ms = int(PROBE_LEASE_SECONDS * 1000)
        calls = [
            ADMIT.call([keyspace.breaker(b.route)], [b.route, token, lease_ms, keyspace.BREAKERS])
            for b, token in zip(asked, tokens, strict=True)
        ]
        for breaker in asked:
            breaker.asking = True
        try:
            replies = await ask_async(self._client, calls)
        except RedisError as error:
            self._go_alone(error)
            return
        finally:
            for breaker in asked:
                breaker.asking = False
        for breaker, token, (granted, raw) in zip(asked, tokens, replies, strict=True):
            breaker.hear(from_json(raw), newest=True)
            if granted:
                breaker.reserved = Admission(breaker.view.epoch, probe=True, token=token)

    def forgo(self) -> None:
        """Give back every leave to probe that nobody used."""
        for breaker in self.values():
            breaker.forgo()

    def _call(self) -> Call:
        keys = [keyspace.recorded(self._worker)]
        entries = []
        for breaker in self.values():
            keys += [keyspace.breaker(breaker.route), keyspace.calls(breaker.route)]
            count = min(REPORTED_AT_ONCE, len(breaker.unreported))
            held = breaker.reserved.token if breaker.reserved else next(iter(breaker.probes), "")
            entries.append([breaker.route, held, [breaker.unreported.popleft() for _ in range(count)]])
        rules = self.rules
        seconds = (rules.cooldown_seconds, rules.longest_cooldown_seconds, PROBE_LEASE_SECONDS)
        cooldown, longest, lease = (math.ceil(1000 * value) for value in seconds)
        told = (self._number, keyspace.BREAKERS, rules.failures, rules.successes, cooldown, longest, lease)
        return RECORD.call(keys, [*told, CALLS_KEPT, int(GRACE_SECONDS * 1000), to_json(entries)])

    def _go_alone(self, error: RedisError) -> None:
        if self.alone:
            return
        log.warning("redis is away, each worker's breakers decide alone", extra={"error": str(error)})
        now = time.monotonic()
        for breaker in self.values():
            view = breaker.view
            breaker.local = RouteBreaker(self.rules)
            if view.state == "open":
                breaker.local.open_for(max(0.0, view.opens_at - now))
            if view.rests_until > now:
                breaker.local.rest(view.rests_until - now, view.rests_for)
            breaker.reserved = None
            breaker.probes.clear()
        self.alone = True
