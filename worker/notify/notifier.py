"""The notifier: one of the workers reads the current conditions and sends messages, in threads that delay no job.

The worker's event loop renews the lease, so that a channel that hangs does not lose it. The lease of a killed worker ends
after `LEASE_SECONDS`. Every change of an incident happens once, also while two workers act (incidents.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from producer import keyspace
from producer.connection import check_safe, connect
from producer.redis_server.memory import memory
from producer.scripts import Script, ask, ask_async
from worker.control import worker_registry
from worker.control.pause import utc
from worker.events import Event, EventKind, Hooks
from worker.notify.channels.unwritable import UnwritableRedis
from worker.notify.condition import Quiet
from worker.notify.conditions import ConditionReader, memory_steps
from worker.notify.incidents import UNDELIVERED_FOR_MS, Incident, Incidents
from worker.notify.job_webhooks import Deliveries
from worker.notify.objectives.follow import follow_up
from worker.notify.reconcile import Reconciler
from worker.notify.sender import Sender
from worker.notify.settings import Settings
from worker.objectives.policy import SloPolicy
from worker.objectives.watch import Watch
from worker.poller import until_tick
from worker.queue.dead_letters import now_ms
from worker.reports import client_status

log = logging.getLogger("failover.worker")

LEAD = Script.load(Path(__file__).parent / "lua", "lead")
LEASE_SECONDS, RENEW_SECONDS = 6.0, 2.0
STEP_SECONDS = 1.0  # between two steps, because what other workers do is only seen by looking
GAP_SECONDS = 0.2  # between two steps that events of this worker ask for
TELLING = (EventKind.DEAD, EventKind.BREAKER, EventKind.PAUSED, EventKind.RESUMED)  # events that a step follows at once
AFTER_FAILURE_SECONDS = 5.0
HUNG_SECONDS = 120.0  # a notifier thread without a step for so long hangs: another worker takes over
CHECK_SECONDS = 60.0  # between two safety checks of Redis
MEMORY_SECONDS = 5.0  # between two looks at its memory
LOOK_SECONDS = 30  # between two looks at the objectives
COUNTED_SECONDS = 12  # after its end, a minute is counted by the history (its leader's STEP_SECONDS), and is looked at
TRIM_SECONDS = 3600.0
SEARCHED_AT_MOST = 20_000  # accepted jobs; with more, the jobs of one tenant are not searched
SHUTDOWN_SECONDS = 1.0


class ChannelThread:
    """A thread for one channel, so that a channel that hangs delays no other. A busy thread skips offers."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._idle = threading.Event()
        self._idle.set()
        self._offered: SimpleQueue[tuple[Sequence[Incident], int]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def offer(self, unsettled: Sequence[Incident], now: int) -> None:
        """Let the channel send one part of these incidents, unless it is still busy. `now`: Unix time in milliseconds."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._sender.channel.name, daemon=True)
            self._thread.start()
        if self._idle.is_set():
            self._idle.clear()
            self._offered.put((unsettled, now))

    def _work(self) -> None:
        while True:
            unsettled, now = self._offered.get()
            try:
                self._sender.step(unsettled, now)
            except RedisError as error:
                log.warning("redis is away, a channel waits", extra={"error": str(error)})
            except Exception:
                log.exception("a channel failed", extra={"channel": self._sender.channel.name})
            self._idle.set()

    def wait_idle(self, seconds: float) -> None:
        """Wait until it is idle, at most `seconds`."""
        self._idle.wait(seconds)


class Notifier:
    """The notifier of one worker. `client`: a blocking client, shared by its threads. `objectives` returns the policies/slo.yaml
    in force. `without_workers`: it is no worker's, and sends only while none is alive."""

    def __init__(
        self,
        client: redis.Redis,
        worker_name: str,
        settings: Settings,
        objectives: Callable[[], SloPolicy] = SloPolicy,
        *,
        without_workers: bool = False,
    ) -> None:
        self._only_without_workers = without_workers
        self._client, self._name, self._settings = client, worker_name, settings
        self._incidents = Incidents(client)
        self._conditions = ConditionReader(client, settings.on_call, settings.alert_thresholds)
        self._quiet = Quiet(client, settings.on_call)
        self._watch, self._objectives = Watch(client, objectives), objectives
        self._reconciler = Reconciler(client, settings.on_call)
        self._senders = [
            Sender(channel, self._incidents, settings.on_call, self._paste) for channel in settings.channels
        ]
        self._unwritable = UnwritableRedis(settings.channels, settings.on_call)
        self._refusal: str | None = None  # of the last write of the lease; "": it was accepted; None: no answer
        self._leads, self._stopped, self._woken = threading.Event(), threading.Event(), threading.Event()
        self._channel_threads = [ChannelThread(sender) for sender in self._senders]
        self._has_channels = len(settings.channels) > 1 or bool(settings.subscribers)  # besides the log
        self._checked = self._trimmed = self._weighed = -TRIM_SECONDS
        self._looked = 0
        self._stepped = 0.0  # monotonic
        self._away = False

    @property
    def leads(self) -> bool:
        """Whether this worker is the notifier now."""
        return self._leads.is_set()

    def wake(self, event: Event) -> None:
        """A hook: something happened that people may have to know."""
        self._woken.set()

    async def run(self, client: redis.asyncio.Redis) -> None:
        """Hold the lease or wait for it, and send messages while it is held. `client`: that of the worker's event loop."""
        thread = threading.Thread(target=self._work, name="notifier", daemon=True)
        self._stepped = time.monotonic()
        thread.start()
        try:
            while True:
                well = thread.is_alive() and time.monotonic() - self._stepped < HUNG_SECONDS
                leads = await self._lease(client, LEASE_SECONDS if well and await self._may_lead() else 0)
                if self._refusal is not None and (self.leads or self._unwritable.lasts):
                    await asyncio.to_thread(self._unwritable.look, self._refusal)
                if leads and not self.leads:
                    log.info(
                        "this worker is the notifier now", extra={"channels": [s.channel.name for s in self._senders]}
                    )
                (self._leads.set if leads else self._leads.clear)()
                await asyncio.sleep(until_tick(RENEW_SECONDS))
        finally:
            self._stopped.set()
            self._woken.set()
            with contextlib.suppress(TimeoutError):  # first, because a hurried drain waits for nothing after it
                async with asyncio.timeout(SHUTDOWN_SECONDS):
                    await self._lease(client, 0)
            await asyncio.to_thread(thread.join, SHUTDOWN_SECONDS)
            for channel_thread in self._channel_threads:
                await asyncio.to_thread(channel_thread.wait_idle, SHUTDOWN_SECONDS / 2)

    async def _may_lead(self) -> bool:
        """A worker always may; the web process only while no worker is alive."""
        if not self._only_without_workers:
            return True
        try:
            return not await asyncio.to_thread(worker_registry.views, self._client)
        except (RedisError, ValueError):
            return False

    async def _lease(self, client: redis.asyncio.Redis, seconds: float) -> bool:
        """Take, renew or (with 0 seconds) release the lease. Returns whether this worker holds it."""
        args = (self._name, int(seconds * 1000), int(self._has_channels))
        try:
            (reply,) = await ask_async(client, [LEAD.call([keyspace.NOTIFIER], args)])
        except (RedisError, OSError) as error:
            self._refusal = str(error) if "MISCONF" in str(error) else None
            return False
        self._refusal = ""
        return bool(reply)

    def _work(self) -> None:
        while not self._stopped.wait(GAP_SECONDS):
            self._woken.wait(STEP_SECONDS)
            self._woken.clear()
            self._stepped = time.monotonic()
            if self._stopped.is_set() or not self.leads:
                self._reconciler.forget()
                continue
            try:
                self.step()
                self._away = False
            except (RedisConnectionError, RedisTimeoutError) as error:
                if not self._away:
                    log.warning("redis is away, no notification is sent", extra={"error": str(error)})
                self._away = True
            except Exception:
                log.exception("a step of the notifier failed")
                self._stopped.wait(AFTER_FAILURE_SECONDS)

    def step(self) -> None:
        """Read the conditions, update the incidents, and let each channel send one part."""
        self._periodic_checks()
        reader = self._conditions
        also = (reader.dangers, memory_steps(reader.memory), reader.findings)
        if self._quiet.lasts(reader.queues, reader.routes, also):
            return
        snapshot = self._conditions.read()
        self._reconciler.reconcile(snapshot)
        unsettled = self._incidents.unsettled()
        self._quiet.seen(nothing=not snapshot.conditions and not unsettled)
        silenced = self._incidents.silenced(unsettled)
        for channel_thread in self._channel_threads:
            channel_thread.offer([each for each in unsettled if each.id not in silenced], snapshot.now_ms)
        for incident in unsettled:
            if incident.resolved_ms is None or not self._has_channels:
                continue
            if incident.id in silenced or self._settled(incident, snapshot.now_ms):
                self._incidents.mark_delivered(incident)

    def _settled(self, incident: Incident, now: int) -> bool:
        if now - (incident.closed_ms or now) > UNDELIVERED_FOR_MS:
            log.error(
                "no channel accepted the closing of an incident",
                extra={"incident": incident.id, "title": incident.title},
            )
            return True
        return all(sender.all_sent(incident) for sender in self._senders)

    def _periodic_checks(self) -> None:
        now = time.monotonic()
        if now - self._checked > CHECK_SECONDS:
            self._checked = now
            self._conditions.dangers = tuple(check_safe(self._client))
        if now - self._weighed > MEMORY_SECONDS:
            self._weighed = now
            self._conditions.memory = memory(self._client)
        if (look := int((time.time() - COUNTED_SECONDS) // LOOK_SECONDS)) != self._looked:
            self._looked = look
            self._judge()
        if now - self._trimmed > TRIM_SECONDS:
            self._trimmed = now
            self._incidents.trim(now_ms(self._client))

    def _judge(self) -> None:
        """Look at the objectives, and do what follows."""
        follow, found = self._objectives().follow, self._watch.findings(now_ms(self._client))
        self._conditions.follow, self._conditions.findings = follow, found
        follow_up(self._client, follow, found)

    def _paste(self, incident: Incident, message_name: str, tenant: str) -> str:
        """A client message, filled; "" if a placeholder has no value, so that nobody pastes an incomplete text."""
        message = self._settings.messages.get(message_name)
        if message is None:
            return ""
        facts = {"tenant": tenant, "since": utc(incident.opened_ms / 1000)}
        if message.needs - facts.keys():
            queues = self._conditions.queues
            sizes = ask(self._client, [("ZCARD", keyspace.accepted(queue)) for queue in queues])
            if sum(sizes) <= SEARCHED_AT_MOST:
                found = client_status.of_tenant(self._client, tenant)
                facts |= found.facts(client_status.minutes(self._client, found.queues or queues))
        return message.filled(facts) if message.needs <= facts.keys() else ""


def notifier_tasks(
    url: str,
    client: redis.asyncio.Redis,
    worker_name: str,
    settings: Settings | None,
    hooks: Hooks,
    objectives: Callable[[], SloPolicy],
) -> list[Coroutine[Any, Any, None]]:
    """The endless tasks that send notifications; none without settings: then other workers do it. `hooks`: of the worker;
    `objectives`: as the notifier's."""
    if settings is None:
        return []
    notifier = Notifier(connect(url, max_connections=1), worker_name, settings, objectives)
    hooks.subscribe(notifier.wake, TELLING)
    deliveries = Deliveries(client, settings.subscribers, lambda: notifier.leads, settings.network)
    return [notifier.run(client), deliveries.run()]
