"""The breakers of all routes, shared by all workers through Redis.

The state of a route's breaker is one hash in Redis (lua/breaker.lua). Each worker keeps a view of it, so that choosing a
route needs no round trip: changes are published, and every second all views are read again. The results of attempts are
reported in batches, failures at once. Only a probe needs a permit from Redis. While Redis is away, each worker protects
the routes with a breaker of its own (local.py), which starts from the last view.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import redis.asyncio
from pydantic_core import from_json, to_json
from redis.exceptions import RedisError, ResponseError

from producer import keyspace
from producer.scripts import Call, Script, ask_async
from worker.breakers.health import RESTORE
from worker.breakers.local import RULES, Permit, RouteBreaker, Rules
from worker.breakers.shared import SharedBreaker
from worker.events import Hooks

log = logging.getLogger("failover.worker")

_LUA = Path(__file__).parent / "lua"
ADMIT, RECORD = (Script.load(_LUA, name) for name in ("admit", "record"))

POLL_SECONDS = 1.0
REPORT_SECONDS = 0.25  # how long a success waits to share a report; a failure is reported at once
PROBE_LEASE_SECONDS = 5.0  # extended by every poll; after it, another worker may probe in place of a killed one
CALLS_KEPT = 200  # the latest calls of a route, for its latency and error rate
KEYS_FIX = ("unauthorized", "forbidden")  # reasons of a route cooldown that new keys may fix
UNUSED_SECONDS = 2.0  # an unused probe permit is given back after it
GRACE_SECONDS = 60.0  # for so long after a success, the retries of a single job do not open a route
REPORTED_AT_ONCE = 1000  # results per route and report


class Breakers(dict[str, SharedBreaker]):
    """The breakers of one worker, by route name. `changed` is called when a route opens or closes."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        worker_name: str,
        routes: Sequence[str],
        rules: Rules = RULES,
        changed: Callable[[], None] = lambda: None,
        hooks: Hooks | None = None,
    ) -> None:
        super().__init__((route, SharedBreaker(route, self, RouteBreaker(rules))) for route in routes)
        self.rules, self.changed, self.hooks = rules, changed, hooks or Hooks()
        self.alone = False  # Redis is away: each breaker decides by itself
        self._client, self._worker = client, worker_name
        self._report: Call | None = None  # the report that Redis has not answered yet
        self._number = 0
        self._asks_again_at = -math.inf  # monotonic; while Redis is away
        self._refusal: ResponseError | None = None  # why Redis refuses the reports
        self._renewed: set[str] = set()  # routes with new keys that are not restored in Redis yet
        self.kick = asyncio.Event()  # set it to report at once
        self._timer: asyncio.TimerHandle | None = None

    def adopt(self, routes: Sequence[str], rules: Rules) -> None:
        """Add these routes. A removed route keeps its breaker, for the attempts that still run on it."""
        self.rules = rules
        for route in routes:
            if route not in self:
                self[route] = SharedBreaker(route, self, RouteBreaker(rules))

    def renew(self, routes: Sequence[str]) -> None:
        """These routes have new keys: end the cooldown of each whose old keys were refused."""
        for route in routes:
            if self[route].view.rests_for in KEYS_FIX and self[route].view.rests_until > time.monotonic():
                self._renewed.add(route)
        if self._renewed:
            self.kick.set()

    async def poll(self) -> None:
        """Call `sync`. While Redis is away, a failure of a route does not cause an earlier attempt to reach Redis. Raises
        ResponseError while Redis refuses the reports: a person has to act."""
        if not self.alone or time.monotonic() >= self._asks_again_at:
            await self.sync()
        if self._refusal is not None:
            raise self._refusal

    async def sync(self) -> None:
        """Send one report and update every view from the reply. On Redis trouble, each breaker decides alone until the next
        report succeeds. Raises nothing for Redis trouble."""
        for breaker in self.values():
            if breaker.reserved_at < time.monotonic() - UNUSED_SECONDS:
                breaker.forgo()  # another worker may have a job for it
        if self._report is None:
            self._number += 1
            self._report = self._call()
        try:
            (reply,) = await ask_async(self._client, [self._report])
        except RedisError as error:
            self._go_alone(error)
            self._asks_again_at = time.monotonic() + POLL_SECONDS / 2
            self._refusal = error if isinstance(error, ResponseError) else None
            return
        self._report = self._refusal = None
        if self.alone:
            log.info("Redis is back, breakers are shared again")
            self.alone = False
        for raw in reply:
            fields = from_json(raw)
            self[fields["route"]].hear(fields, newest=True)
        if any(breaker.unreported for breaker in self.values()):
            self.report_soon(at_once=False)
        if self._renewed:
            await self._restore()

    async def _restore(self) -> None:
        """Restore the routes whose keys were renewed, in Redis."""
        renewed, self._renewed = list(self._renewed), set()
        keys = [[keyspace.breaker(route), keyspace.AUDIT, keyspace.QUEUES] for route in renewed]
        calls = [RESTORE.call(k, [r, keyspace.BREAKERS, self._worker]) for k, r in zip(keys, renewed, strict=True)]
        try:
            await ask_async(self._client, calls)
        except RedisError as error:
            log.warning("routes with new keys stay in cooldown", extra={"routes": renewed, "error": str(error)})

    def heard(self, message: bytes) -> None:
        """Apply a published change. Invalid messages are ignored: anybody can publish, and `sync` reads every state."""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            fields = from_json(message)
            if not self.alone and (breaker := self.get(fields["route"])) is not None:
                breaker.hear(fields, newest=False)

    def report_soon(self, *, at_once: bool) -> None:
        """Send a report within REPORT_SECONDS, or now."""
        if at_once:
            self.kick.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._due)

    def _due(self) -> None:
        self._timer = None
        self.kick.set()

    async def reserve(self, breakers: Sequence[SharedBreaker] | None = None) -> None:
        """Ask Redis for probe permits of the routes that are due. Afterwards `may_probe` says whether one was granted."""
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
                breaker.reserved = Permit(breaker.view.epoch, probe=True, token=token)
                breaker.reserved_at = time.monotonic()

    def forgo(self) -> None:
        """Give back all unused probe permits."""
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
        args = (self._number, keyspace.BREAKERS, rules.failures, rules.successes, cooldown, longest, lease)
        return RECORD.call(keys, [*args, CALLS_KEPT, int(GRACE_SECONDS * 1000), to_json(entries)])

    def _go_alone(self, error: RedisError) -> None:
        """Redis is away: start a local breaker for each route, in the state of the last view."""
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
