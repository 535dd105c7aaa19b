"""The notifier: one worker among all looks how things stand and tells people. It is a thread, so no job waits for it.

The lease is held from the worker's loop, so that a channel that hangs does not lose it; a killed worker's is free after
`LEASE_SECONDS`. What is written to an incident is written once whoever holds it (worker/notify/incidents.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import redis
import redis.asyncio
from redis.exceptions import RedisError

from producer import keyspace
from producer.connection import check_safe
from producer.scripts import Script, ask, ask_async
from worker import waiting
from worker.dead_letter import now_ms
from worker.notify import text
from worker.notify.incidents import UNTOLD_FOR_MS, Incident, Incidents
from worker.notify.kinds import LORE
from worker.notify.lookout import Lookout
from worker.notify.sender import Sender
from worker.notify.settings import Settings
from worker.notify.watch import Watch

log = logging.getLogger("failover.worker")

LEAD = Script.load(Path(__file__).parent / "lua", "lead")
LEASE_SECONDS, RENEW_SECONDS = 6.0, 2.0
STEP_SECONDS = 0.5
CHECK_SECONDS = 60.0  # between two looks at how safe Redis is
TRIM_SECONDS = 3600.0
FILLED_AT_MOST = 20_000  # accepted jobs; among more, nobody looks for one tenant's
FAREWELL_SECONDS = 1.0


class Notifier:
    """One worker's. `client` is the worker's own blocking client, used from the thread alone while it runs."""

    def __init__(self, client: redis.Redis, worker_name: str, queues: Sequence[str], settings: Settings) -> None:
        self._client, self._name, self._queues, self._settings = client, worker_name, queues, settings
        self._incidents = Incidents(client)
        self._watch = Watch(client, queues, settings.on_call)
        self._lookout = Lookout(client, queues, settings.on_call)
        self._senders = [
            Sender(channel, self._incidents, settings.on_call, self._paste) for channel in settings.channels
        ]
        self._leads, self._stopped = threading.Event(), threading.Event()
        self._checked = self._trimmed = -TRIM_SECONDS
        self._away = False

    @property
    def leads(self) -> bool:
        """Whether this worker is the notifier now."""
        return self._leads.is_set()

    async def run(self, client: redis.asyncio.Redis) -> None:
        """Hold the lease, or wait for it, and tell people while it is held. `client`: of the worker's loop."""
        thread = threading.Thread(target=self._work, name="notifier", daemon=True)
        thread.start()
        try:
            while True:
                leads = False
                with contextlib.suppress(RedisError):
                    lease_ms = int(LEASE_SECONDS * 1000)
                    (reply,) = await ask_async(client, [LEAD.call([keyspace.NOTIFIER], [self._name, lease_ms])])
                    leads = bool(reply)
                if leads and not self.leads:
                    log.info(
                        "this worker tells people now", extra={"channels": [s.channel.name for s in self._senders]}
                    )
                (self._leads.set if leads else self._leads.clear)()
                await asyncio.sleep(RENEW_SECONDS)
        finally:
            self._stopped.set()
            await asyncio.to_thread(thread.join, FAREWELL_SECONDS)
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await ask_async(client, [LEAD.call([keyspace.NOTIFIER], [self._name, 0])])

    def _work(self) -> None:
        while not self._stopped.wait(STEP_SECONDS):
            if not self.leads:
                continue
            try:
                self.step()
                self._away = False
            except RedisError as error:
                if not self._away:
                    log.warning("redis is away, nobody is told of anything", extra={"error": str(error)})
                self._away = True
            except Exception:
                log.exception("a look at incidents failed")
                self._stopped.wait(CHECK_SECONDS / 10)

    def step(self) -> None:
        """Look, judge, and let each channel say one thing."""
        self._now_and_then()
        sight = self._watch.look()
        self._lookout.judge(sight)
        unsettled = self._incidents.unsettled()
        silenced = self._incidents.silenced(unsettled)
        for sender in self._senders:
            sender.step([each for each in unsettled if each.id not in silenced], sight.now_ms)
        for incident in unsettled:
            if incident.resolved_ms is not None and self._settled(incident, sight.now_ms):
                self._incidents.all_told(incident)

    def _settled(self, incident: Incident, now: int) -> bool:
        if now - (incident.resolved_ms or now) > UNTOLD_FOR_MS:
            log.error("nobody could be told of an incident", extra={"incident": incident.id, "title": incident.title})
            return True
        return all(sender.all_told(incident) for sender in self._senders)

    def _now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._checked > CHECK_SECONDS:
            self._checked = now
            self._watch.dangers = tuple(check_safe(self._client))
        if now - self._trimmed > TRIM_SECONDS:
            self._trimmed = now
            self._incidents.trim(now_ms(self._client))

    def _paste(self, incident: Incident) -> tuple[tuple[str, str], ...]:
        """The client message, filled for each of the first tenants."""
        message = self._settings.messages.get(LORE[incident.kind].message)
        if message is None or not incident.tenants:
            return ()
        sizes = ask(self._client, [("ZCARD", keyspace.accepted(queue)) for queue in self._queues])
        if sum(sizes) > FILLED_AT_MOST:
            return ()
        until = waiting.minutes(self._client, self._queues)
        return tuple(
            (f"To {tenant}, to paste", message.filled(waiting.of_tenant(self._client, tenant).facts(until)))
            for tenant in list(incident.tenants)[: text.OFFERED]
        )
