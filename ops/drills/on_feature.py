"""The stage of a drill on real providers: one flagged feature, in production or on a staging, with the workers that run there.

The fault is a lease in Redis: workers fail the calls of this feature's jobs to the primary provider before they are sent, while
the lease is kept. Nothing else hears of it: no account, no breaker, no other feature. kill -9 of the drill, its time limit or a
Redis that is away end the fault within LEASE_SECONDS.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import redis
from redis.exceptions import RedisError

from ops.drills.evidence import Finding
from ops.drills.scenario import Fault, Tier
from ops.drills.stage import Stage
from producer import Producer, keyspace
from producer.errors import UsageError
from producer.scripts import although_full, ask, hold
from worker.breakers import health
from worker.control import worker_registry
from worker.control.audit_trail import audited
from worker.control.held_drill import LEASE_SECONDS, LOOK_SECONDS
from worker.control.pause import holding
from worker.notify.incidents import Incidents
from worker.notify.kinds import OUTAGES
from worker.routes.names import canonical

TENANT = "drill"
RENEW_SECONDS = LEASE_SECONDS / 3
PROOF_MS = 1500  # of the lease that shows, before any fault, that one ends by itself
NOTICED_SECONDS = 2 * LOOK_SECONDS  # until every worker has looked


@dataclass(frozen=True)
class Target:
    """What the drill concerns. `provider`: of the first hot route, `routes`: its own; `others`: those that can answer instead."""

    feature: str
    provider: str
    routes: tuple[str, ...]
    others: tuple[str, ...]


class Lease:
    """Keeps the fault as long as this process lives, at most until `ends` (monotonic)."""

    def __init__(self, client: redis.Redis, target: Target, who: str, ends: float) -> None:
        self._client, self._target, self._who, self._ends = client, target, who, ends
        self._over = threading.Event()
        self._keeper: threading.Thread | None = None
        self._note = ""

    def take(self, fault: Fault) -> None:
        """Begin the fault. Raises UsageError if another drill is held."""
        facts = {
            "feature": self._target.feature,
            "provider": self._target.provider,
            "fault": str(fault),
            "who": self._who,
        }
        self._note = json.dumps(facts)
        (ours,) = ask(self._client, [hold(keyspace.DRILL, self._note, _ms(LEASE_SECONDS))])
        if not ours:
            raise UsageError("another drill is held on this Redis: wait until it has ended")
        self._tell("drill began", fault=str(fault))
        self._over.clear()
        self._keeper = threading.Thread(target=self._keep, name="drill lease", daemon=True)
        self._keeper.start()

    def end(self) -> None:
        """End the fault, if there is one."""
        if self._keeper is None:
            return
        self._over.set()
        self._keeper.join()
        self._keeper = None
        if ask(self._client, [("GET", keyspace.DRILL)]) == [self._note.encode()]:
            ask(self._client, [although_full(("DEL", keyspace.DRILL))])
        self._tell("drill ended")

    def _keep(self) -> None:
        while not self._over.wait(RENEW_SECONDS) and time.monotonic() < self._ends:
            with contextlib.suppress(RedisError):  # the fault ends by itself; the next time may come through
                ask(self._client, [hold(keyspace.DRILL, self._note, _ms(LEASE_SECONDS))])

    def _tell(self, action: str, **facts: str) -> None:
        ask(self._client, [audited(action, self._who, feature=self._target.feature, **facts)])


@dataclass
class FeatureStage(Stage):
    lease: Lease

    def inject(self, faults: Mapping[Tier, Fault]) -> None:
        self.lease.end()
        if "hot" in faults:
            self.lease.take(faults["hot"])
        time.sleep(NOTICED_SECONDS)

    def roll_back(self, traffic: Callable[[], object] | None) -> None:
        """Nothing: no breaker and no cooldown came of the fault."""


@contextlib.contextmanager
def on_feature(producer: Producer, target: Target, who: str, minutes: float) -> Iterator[Stage]:
    """The stage; its fault ends with the block, and after so many minutes."""
    lease = Lease(producer.client, target, who, time.monotonic() + 60 * minutes)
    try:
        yield FeatureStage(producer, frozenset(target.routes), target.feature, TENANT, lease)
    finally:
        lease.end()


def target_of(client: redis.Redis, feature: str) -> Target:
    """The primary provider and those that can answer instead, by the routes that workers have. Raises UsageError."""
    usable = worker_registry.usable(worker_registry.views(client))
    hot = [name for name, route in usable.items() if route["tier"] == "hot"]
    if not hot:
        raise UsageError("no worker with a hot route runs on this Redis: start failover-worker first")
    provider = canonical(usable[hot[0]]["provider"])
    own = tuple(name for name, route in usable.items() if canonical(route["provider"]) == provider)
    known = health.of_routes(client, [name for name in usable if name not in own])
    return Target(feature, provider, own, tuple(name for name, each in known.items() if each.serves))


def pre_checks(producer: Producer, target: Target) -> Iterator[Finding]:
    """What must hold before a fault is set, that it can be undone first of all."""
    client, queue = producer.client, producer.queue
    ask(client, [hold(keyspace.DRILL, "a proof that a lease ends", PROOF_MS)])
    give_up = time.monotonic() + 2 * PROOF_MS / 1000
    while (there := bool(ask(client, [("EXISTS", keyspace.DRILL)])[0])) and time.monotonic() < give_up:
        time.sleep(0.05)
    yield Finding("the fault ends by itself", not there, "it stays" if there else "yes", "yes")
    workers = worker_registry.alive(client, queue)
    yield Finding(f"workers of {queue}", workers > 0, str(workers), "at least 1")
    others = ", ".join(target.others) or "none"
    yield Finding(f"routes that can answer for {target.provider}", bool(target.others), others, "at least 1")
    serving = [name for name, each in health.of_routes(client, target.routes).items() if each.serves]
    yield Finding(f"routes of {target.provider} in use", bool(serving), ", ".join(serving) or "none", "at least 1")
    flags = holding(client, queue)
    yield Finding("nothing is paused", not flags, str(flags[0]) if flags else "yes", "yes")
    opened = [each.title for each in Incidents(client).unsettled() if each.is_open and each.kind in OUTAGES]
    yield Finding("no outage is open", not opened, opened[0] if opened else "yes", "yes")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
