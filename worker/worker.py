"""FailoverWorker: an RQ worker that executes many jobs at once on one asyncio loop.

RQ's tools see a normal worker (registration, heartbeat, state, `rq info`), but RQ's own dequeue, recovery and retry are not
used: only the transitions change a job's state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Coroutine, Sequence
from typing import Any
from uuid import uuid4

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from producer import telemetry
from producer.connection import connect, connect_async
from producer.redis_server.cancelling import cancelled
from producer.scripts import Gathering, ask_async
from worker import execution_log
from worker.breakers.local import Rules
from worker.configuration import Configuration, Current, Stamp
from worker.control import worker_registry
from worker.events import Event, EventKind, Hook, Hooks
from worker.memory import Hold, Limit, Memory, current, limit_of
from worker.notify.notifier import notifier_tasks
from worker.notify.settings import Settings
from worker.poller import Poller, until_tick
from worker.queue import maintenance, transitions
from worker.queue.batcher import GATHER_SECONDS, Pace
from worker.queue.claim import Claim
from worker.queue.claimer import Claimer
from worker.queue.drain import Execution, let_end
from worker.queue.outcome_events import event_of, executed_event, record_of
from worker.queue.outcomes import Executed, Released, given_back, unwritable
from worker.queue.suspects import Suspects
from worker.routes.api_keys import Keys
from worker.runtime import Runtime

log = logging.getLogger("failover.worker")

CLAIM_AT_MOST = 50  # jobs per claim, because the script blocks Redis while it runs
IDLE_SECONDS = 1.0  # an idle worker claims again after it, or when a wake-up message arrives
QUIET_SECONDS = 0.02  # so long after a claim that found nothing, other workers take the jobs that come
RECONNECT_SECONDS = (0.2, 5.0)  # first wait, longest wait
FAREWELL_SECONDS = 1.0  # for the last writes to Redis when the worker stops


class FailoverWorker(BaseWorker):
    """Claims from `queues` (highest first), executes up to `concurrency` jobs at once, drains on request.

    With `burst` it stops once nothing runs and nothing can be claimed (queue empty or paused, no route open); it does not
    wait for scheduled retries. `rules`: of the breakers, instead of routes.json's. `settings`: who gets messages about
    incidents. `reloads`: stamp of the configuration files before they were read; if given, they are watched. `hooks` are
    called with every event (worker/events.py). `memory`: how much this process may use (worker/memory.py). `keys.put` adds
    API keys in memory.
    """

    def __init__(
        self,
        redis_url: str,
        queues: list[str],
        configuration: Configuration,
        *,
        concurrency: int = 100,
        drain_seconds: float = 25.0,
        burst: bool = False,
        rules: Rules | None = None,
        settings: Settings | None = None,
        reloads: Stamp | None = None,
        hooks: Sequence[Hook] = (),
        memory: Limit | None = None,
    ) -> None:
        name = f"{worker_registry.OUR_NAMES}{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
        super().__init__(
            queues,
            name=name,
            connection=connect(redis_url),
            serializer="json",
            worker_ttl=worker_registry.WORKER_TTL_SECONDS,
        )
        self.concurrency, self.drain_seconds, self.burst = concurrency, drain_seconds, burst
        self.ended = 0  # executions whose outcome this worker has settled
        self._current = Current(configuration)
        self.keys = Keys(of_tenants=lambda: self._current.configuration.tenant_keys)
        self.hooks = Hooks()
        execution_log.subscribe(self.hooks)
        if (recorder := telemetry.current()) is not None:
            from worker.telemetry.subscriber import subscribe  # loads OpenTelemetry's messages

            subscribe(self.hooks, recorder, lambda: self._current.configuration.routes.routes)
        for hook in hooks:
            self.hooks.subscribe(hook)
        self._url, self._rules = redis_url, rules
        self._settings, self._reloads = settings, reloads
        self._executions: dict[str, Execution] = {}  # by lease, in the order claimed
        self._pace, self._empty_at = Pace(), 0.0  # of the claimed jobs; when the last claim found none (monotonic)
        self._hungry = False  # there may be more jobs to claim, but no free slot
        self._suspects = Suspects(self._begin)
        self._memory = Memory(memory or limit_of(None))
        self._broken: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = asyncio.Event()
        self._hurried = asyncio.Event()
        self._wake = asyncio.Event()

    def work(self, *_: Any, **__: Any) -> bool:
        """Work until drained; True if any execution ended. RQ's options are ignored, because RQ's loop is not used."""
        asyncio.run(self.run())
        return self.ended > 0

    def drain(self, *, hurry: bool = False) -> None:
        """Stop claiming, let running jobs end within `drain_seconds` (`hurry`: do not wait), and release the others.

        It may be called from a signal handler or another thread, and more than once.
        """

        def begin() -> None:
            self._draining.set()
            self._wake.set()
            if hurry:
                self._hurried.set()

        if self._loop is None:
            begin()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(begin)

    async def run(self) -> None:
        """`work` for a caller on an event loop. Raises RedisError when Redis cannot be reached at the start."""
        self._loop = asyncio.get_running_loop()
        self._redis = connect_async(self._url, max_connections=2)
        self._polled = Gathering(self._redis)
        self._heart = connect_async(self._url, max_connections=1)  # no large reply and no settle delays a heartbeat
        queues = self.queue_names()
        self._runtime = runtime = Runtime(
            self._redis,
            self._polled,
            self.name,
            queues,
            self.concurrency,
            self._current,
            self.keys,
            self._wake.set,
            self.hooks,
            rules=self._rules,
            reloads=self._reloads,
        )
        self._breakers, self._flags, self._batcher = runtime.breakers, runtime.flags, runtime.batcher
        self._claimer = Claimer(self._redis, self._polled, self.name, queues, self._flags, self._memory)
        self._poller = Poller()
        await runtime.learn()
        self.birth_date = now()
        await self._first_beat()
        self.connection.connection_pool.disconnect()  # RQ's class uses it only to begin
        log.info("worker started", extra={"worker": self.name, "queues": queues, "slots": self.concurrency})
        services = [asyncio.create_task(service) for service in self._services()]
        for service in services:
            service.add_done_callback(self._service_ended)
        try:
            await self._claim_until_drained()
            await self._let_running_end()
        finally:
            await cancelled(services)
            await runtime.close()
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self._heart.aclose()
                    self._breakers.forgo()
                    await self._breakers.sync()
                    await self._batcher.flush()
                    await ask_async(self._redis, worker_registry.deregistration(self.key, self.queue_names()))
                    await self._redis.aclose()
            self.connection.close()
            log.info("worker stopped", extra={"worker": self.name, "executions": self.ended})
        if self._broken is not None:
            raise self._broken

    async def _first_beat(self) -> None:
        """Register by a heartbeat: RQ's `register_birth` would fail on a full Redis. A lost connection is waited for."""
        while not self._draining.is_set():
            try:
                await self._beat()
            except (RedisConnectionError, RedisTimeoutError) as error:
                log.warning("redis is away, the start waits", extra={"error": str(error)})
                await self._rest(RECONNECT_SECONDS[0])
            else:
                return

    def _service_ended(self, service: asyncio.Task[None]) -> None:
        """A service must never end. If one fails, the worker stops, because leases or results would be lost without it."""
        if not service.cancelled() and (error := service.exception()) is not None:
            log.critical("a service of the worker failed, the worker stops", exc_info=error)
            self._broken = error
            self.drain(hurry=True)

    def _services(self) -> list[Coroutine[Any, Any, None]]:
        heard = maintenance.Heard(self._wake.set, self.drain, self._breakers.heard, self._runtime.look_again)
        self._runtime.poll(self._poller)
        maintenance.poll(self._poller, self._redis, self._polled, self.queue_names(), self._beat)
        return [
            *self._runtime.services(),
            *self._poller.services(),
            *notifier_tasks(
                self._url,
                self._polled,
                self.name,
                self._settings,
                self.hooks,
                lambda: self._current.configuration.objectives,
            ),
            maintenance.listen(self._url, self.name, heard, self._poller),
        ]

    async def _claim_until_drained(self) -> None:
        wait, idle = RECONNECT_SECONDS[0], False
        while not self._draining.is_set():
            room = min(await self._room(), CLAIM_AT_MOST)
            self._hungry = room <= 0
            admission = self._runtime.admission
            if self._hungry and self.burst and admission.probing and not self._executions:
                break
            if self._hungry:
                await self._rest(min(IDLE_SECONDS, admission.opens_in() or IDLE_SECONDS))
                continue
            self._wake.clear()
            try:
                claimed = await self._claimer.claim(room, idle=idle)
                self._pace.came(len(claimed))
                self._empty_at = 0.0 if claimed else time.monotonic()
            except RedisError as error:
                self._poller.failed("claim", error)
                await self._rest(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                wait = min(wait * 2, RECONNECT_SECONDS[1])
                continue
            self._poller.works("claim")
            wait, idle = RECONNECT_SECONDS[0], False
            held = any(self._flags.paused(claim.queue) for claim in claimed)
            # claims of a paused queue go back to the head of the queue: the last one first, to keep their order
            for claim in reversed(claimed) if held else claimed:
                self._start(claim)
            if not claimed:
                self._breakers.forgo()
            self._hungry = len(claimed) == room or self._claimer.reached_its_size
            if self._hungry:
                await self._gather()
            elif self.burst and not self._executions:
                break
            else:
                idle = not await self._rest(until_tick(IDLE_SECONDS))

    async def _room(self) -> int:
        """How many jobs may start now. Logs when the last route closes and when the first one opens again."""
        was_probing = self._runtime.admission.probing
        admission = self._runtime.update_admission()
        if admission.probing:
            await self._breakers.reserve()
            admission = self._runtime.update_admission()
        if admission.probing and not was_probing:
            seconds = round(admission.opens_in() or 0.0, 1)
            log.warning("no route is open, claiming waits", extra={"probe_in_seconds": seconds})
        elif was_probing and not admission.probing:
            log.info("a route is open again, claiming ramps up")
        if not self._memory.free:
            return 0
        return admission.room(len(self._executions) - min(self._suspects.waiting, self.concurrency))

    async def _rest(self, seconds: float) -> bool:
        """Wait until something changes (a wake-up, a free slot, the drain), at most `seconds`. Returns whether it did."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
            await self._gather()
            self._wake.clear()
            return True
        return False

    async def _gather(self) -> None:
        """Wait a little where it pays: slots that become free, and jobs that come, are then claimed together. Where other
        workers were faster a moment ago, they take the next jobs too."""
        free = self.concurrency - len(self._executions) if self._hungry else 0
        if self._pace.pays(free) or time.monotonic() - self._empty_at < QUIET_SECONDS:
            await asyncio.sleep(GATHER_SECONDS)

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._execute(claim))
        self._executions[claim.lease] = Execution(claim, task)
        if self.hooks.wants(EventKind.CLAIMED):
            self.hooks.emit(Event(EventKind.CLAIMED, claim.job_id, {"queue": claim.queue, "execution": claim.ordinal}))
        task.add_done_callback(lambda _: self._end(claim.lease))

    def _end(self, lease: str) -> None:
        claim = self._executions.pop(lease).claim
        self._memory.release(lease)
        if claim.suspect:
            self._suspects.ended(claim)
        if self._hungry or (self.burst and not self._executions):
            self._wake.set()

    async def _execute(self, claim: Claim) -> None:
        """Execute a claim and settle its outcome. When it is cancelled (drain, lost lease), the canceller does the rest."""
        execution = self._executions[claim.lease]
        if self._flags.paused(claim.queue):  # claimed just before the pause
            execution.executed = given_back(claim)
        else:
            await self._admitted(claim)
            execution.executed = await self._runtime.executor.run(claim)
        task = asyncio.current_task()
        if isinstance(execution.executed.outcome, Released) and task is not None and task.cancelling():
            return
        execution.settling = True
        try:
            await self._settle(claim, execution.executed)
        except RedisError:
            log.exception("redis refuses the outcome, the lease runs out", extra={"job": claim.job_id})
        except Exception:
            log.exception("an outcome cannot be written", extra={"job": claim.job_id})
            await self._settle(claim, unwritable(claim))

    async def _admitted(self, claim: Claim) -> None:
        """Wait until a suspect may run, and until there is memory for the job."""
        if claim.suspect:
            await self._suspects.turn(claim)
        await self._memory.hold(claim.lease, claim.size)
        current.set(Hold(self._memory, claim.lease))

    async def _begin(self, suspects: Sequence[Claim], alone: bool) -> None:
        with contextlib.suppress(RedisError):  # then none of them is charged
            await ask_async(self._redis, [transitions.begin(claim, alone=alone) for claim in suspects])

    async def _settle(self, claim: Claim, executed: Executed) -> None:
        call = transitions.settle(
            claim,
            executed.outcome,
            worker_name=self.name,
            attempts=executed.attempts,
            run_ms=executed.run_ms,
            record=record_of(claim, executed),
        )
        verdict = transitions.Settled((await self._batcher.commit(call)).decode())
        self.ended += 1
        ended = event_of(claim, executed, verdict)
        self.hooks.emit(ended)
        if self.hooks.wants(EventKind.EXECUTED):
            self.hooks.emit(executed_event(claim, executed, ended))

    async def _beat(self) -> None:
        """Send the heartbeat of the worker and of all its leases; cancel executions whose lease is lost."""
        self.last_heartbeat = now()
        self._state = WorkerStatus.BUSY if self._executions else WorkerStatus.IDLE
        leases: dict[str, list[str]] = {queue: [] for queue in self.queue_names()} if self._claimer.unanswered else {}
        for lease, execution in self._executions.items():
            leases.setdefault(execution.claim.queue, []).append(lease)
        fields = {**self.serialize(), "state": self._state}
        also = worker_registry.registration(self.key, fields, self.queue_names())
        also.append(self._runtime.view(self._poller.told()))
        for lease in await maintenance.extend(self._heart, leases, self._claimer.unanswered, also):
            held = self._executions.get(lease)
            if held is not None and not held.settling:
                log.warning("lease lost, execution dropped", extra={"job": held.claim.job_id})
                held.lost = True
                held.task.cancel()

    async def _let_running_end(self) -> None:
        """The drain: wait for running jobs to end, then give the others back to the head of the queue, in order."""
        if self._claimer.unanswered is not None:
            with contextlib.suppress(RedisError):
                for claim in await self._claimer.claim(0):  # the jobs of the claim whose reply was lost, and no others
                    self._start(claim)
        if not self._executions:
            return
        log.info("draining", extra={"running": len(self._executions), "seconds": self.drain_seconds})
        await let_end(list(self._executions.values()), self._settle, self.drain_seconds, self._hurried)
