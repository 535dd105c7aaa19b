"""Puts the parts of one worker together: what executes claims, what polls Redis, and how a new configuration is adopted."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import redis.asyncio

from producer.scripts import Command, Gathering, ask_async
from worker.breakers.latency import LOOK_SECONDS as LATENCY_SECONDS
from worker.breakers.latency import Latencies
from worker.breakers.local import Rules
from worker.breakers.registry import POLL_SECONDS as BREAKER_SECONDS
from worker.breakers.registry import Breakers
from worker.configuration import LOOK_SECONDS as RELOAD_SECONDS
from worker.configuration import Configuration, Current, Reload, Stamp
from worker.control import held_drill, worker_registry
from worker.control.admission import AdmissionController
from worker.control.flag_watcher import LOOK_SECONDS as FLAG_SECONDS
from worker.control.flag_watcher import FlagWatcher
from worker.control.held_drill import DrillWatcher
from worker.events import Hooks
from worker.executor import Executor
from worker.history.leader import STEP_SECONDS as HISTORY_SECONDS
from worker.history.leader import HistoryLeader
from worker.money.answer_cache import Cache
from worker.money.budget_state import LOOK_SECONDS as BUDGET_SECONDS
from worker.money.budget_state import BudgetWatcher
from worker.money.ledger import COUNT_PAUSE_SECONDS, SWEEP_AFTER_SECONDS, Ledger, month_sums, sweep
from worker.poller import Poller
from worker.providers import Providers
from worker.queue.batcher import Batcher
from worker.queue.claim import Claim
from worker.routes.api_keys import Keys
from worker.routing.accounting import Accounting
from worker.routing.live_text import LiveText
from worker.routing.router import Router
from worker.schedules.leader import STEP_SECONDS as SCHEDULE_SECONDS
from worker.schedules.leader import ScheduleLeader

SWEEP_SECONDS = SWEEP_AFTER_SECONDS / 3

log = logging.getLogger("failover.worker")


class Runtime:
    """The parts of one worker. Create and close it on the event loop that uses it. `polled`: the client of what is polled.

    `slots`: jobs at once. `current`: the configuration to begin with; `adopt` replaces it. `rules`: of the breakers,
    instead of routes.json's. `changed` is called when a route opens or closes, or a flag is set or cleared. `reloads`: the
    stamp of the configuration files before they were read; if given, the files are watched.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        polled: Gathering,
        worker_name: str,
        queues: Sequence[str],
        slots: int,
        current: Current,
        keys: Keys,
        changed: Callable[[], None],
        hooks: Hooks,
        *,
        rules: Rules | None = None,
        reloads: Stamp | None = None,
    ) -> None:
        self._client, self._name, self._slots = client, worker_name, slots
        self._current, self._keys, self._rules = current, keys, rules
        configuration = current.configuration
        self._reload = Reload(configuration, reloads, self.adopt) if reloads is not None else None
        names = [route.name for route in configuration.routes.routes]
        self.breakers = Breakers(polled, worker_name, names, rules or configuration.routes.rules, changed, hooks)
        self.admission = AdmissionController(self.breakers.values(), slots)
        self.flags = FlagWatcher(polled, queues, self.breakers, changed, hooks)
        self.batcher = Batcher(client, random.random)
        self._latencies = Latencies(polled)
        self._budget = BudgetWatcher(polled, lambda: current.configuration.guardrail)
        self._providers = Providers(slots, configuration.network)
        ledger = Ledger(worker_name, self.batcher, self._steps)
        accounting = Accounting(ledger, lambda: self._budget.state, hooks)
        self._drill = DrillWatcher(polled)
        router = Router(
            self._providers,
            self.breakers,
            lambda: current.configuration.routes.routes,
            keys,
            accounting,
            hooks,
            self._drill,
        )
        self._history = HistoryLeader(
            client,
            worker_name,
            lambda: current.configuration.history,
            configuration.archive,
            queues,
            lambda: [name for name, breaker in self.breakers.items() if breaker.state == "open"],
            lambda minute: current.configuration.objectives.maintained(minute),
        )
        self._schedules = ScheduleLeader(
            client,
            worker_name,
            lambda: current.configuration.schedules,
            lambda: current.configuration.policies,
        )
        cache = Cache(self.batcher.ask, lambda: current.configuration.caching)
        self.executor = Executor(
            current, router, random.random, self._latencies, lambda: self._budget.state, cache, self._live_text
        )
        self.adopt(configuration)

    def _live_text(self, claim: Claim) -> LiveText:
        return LiveText(claim.job_id, claim.execution_id, self.batcher.submit)

    def _steps(self) -> tuple[float, ...]:
        """The percentages of a cap that the ledger records when they are reached."""
        return tuple(sorted({*self._budget.steps, self._current.configuration.objectives.spend.percent}))

    def adopt(self, configuration: Configuration) -> None:
        """Use this configuration from now on. Running executions keep the one that they began with."""
        routes, before = configuration.routes, self._current.configuration.routes
        self._current.configuration = configuration
        names = [route.name for route in routes.routes]
        self.breakers.adopt(names, self._rules or routes.rules)
        self.flags.adopt(routes.routes)
        self._latencies.adopt(names if configuration.routing.by_latency else [])
        self._budget.adopt(configuration.budgets)
        keys_before = {route.name: route.keys for route in before.routes}
        self.breakers.renew([each.name for each in routes.routes if keys_before.get(each.name, each.keys) != each.keys])
        unpriced = [route.name for route in routes.routes if route.price is None]
        if unpriced and configuration.budgets.wants_prices:
            fix = "give each a `price` in routes.json, or pip install genai-prices"
            log.warning(
                "routes without a price are not called under a hard cap", extra={"routes": unpriced, "fix": fix}
            )

    def update_admission(self) -> AdmissionController:
        """Update the admission controller by flags, breakers and switches, and return it."""
        routes = self._current.configuration.routes
        self.admission.update(paused=self.flags.all_paused, ignores_breakers=routes.bypass or not routes.cold_queue)
        return self.admission

    async def learn(self) -> None:
        """Read what must be known before the first call: the budgets. Raises RedisError."""
        await self._budget.look()

    def look_again(self) -> None:
        """An operator changed a flag: use refused keys again, and read the flags at once."""
        self._keys.forgive()
        self.flags.look_soon()

    def poll(self, poller: Poller) -> None:
        """Add the steps that read Redis and the configuration files again and again."""
        poller.every("flags", FLAG_SECONDS, self.flags.look, kick=self.flags.kick)
        poller.every("drill", held_drill.LOOK_SECONDS, self._drill.look)
        poller.every("breakers", BREAKER_SECONDS, self.breakers.poll, kick=self.breakers.kick, at_start=False)
        poller.every("latencies", LATENCY_SECONDS, self._latencies.look)
        poller.every("budgets", BUDGET_SECONDS, self._budget.look)
        poller.every("ledger sweep", SWEEP_SECONDS, self._sweep)
        poller.every("history", HISTORY_SECONDS, self._history.step)
        poller.every("schedules", SCHEDULE_SECONDS, self._schedules.step)
        if self._reload is not None:
            poller.every("configuration", RELOAD_SECONDS, self._reload.look, at_start=False)

    def services(self) -> list[Coroutine[Any, Any, None]]:
        """The endless coroutines that are no polled steps."""
        return [self.batcher.run()]

    async def _sweep(self) -> None:
        """Close the ledger rows of workers that are gone."""
        ((released, ambiguous, counting),) = await ask_async(self._client, [sweep(self._steps())])
        if released or ambiguous:
            log.warning("calls of a vanished worker", extra={"released": released, "may_be_billed": ambiguous})
        while counting:
            await asyncio.sleep(COUNT_PAUSE_SECONDS)
            (there,) = await ask_async(self._client, [month_sums("")])
            counting = not there

    def view(self, failing: Sequence[str]) -> Command:
        """The command that writes this worker's state for operators (worker_registry.view). `failing`: what Redis refuses."""
        refused = self._reload.refused if self._reload else ""
        routes = self._current.configuration.routes
        failing = [*failing, *self._history.trouble]
        refused_keys = self._keys.told(key for route in routes.routes for key in route.keys)
        return worker_registry.view(self._name, routes, self._slots, refused, refused_keys, failing)

    async def close(self) -> None:
        await self._providers.close()
