"""What executes claims in one worker: the configuration of the moment, and all that is known of its routes."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import redis.asyncio

from producer.scripts import Command, ask_async
from worker.breakers.latency import Latencies
from worker.breakers.local import Rules
from worker.breakers.registry import Breakers
from worker.configuration import Configuration, Reload, Stamp
from worker.control import worker_registry
from worker.control.admission import Gate
from worker.control.flag_watcher import Controls
from worker.executor import Executor
from worker.money.answer_cache import Cache
from worker.money.budget_state import Allowances
from worker.money.ledger import SWEEP_AFTER_SECONDS, Ledger, sweep
from worker.providers import Providers
from worker.queue import maintenance
from worker.queue.batcher import Batcher
from worker.routes.api_keys import Keys
from worker.routing.accounting import Bookkeeper
from worker.routing.router import Router

SWEEP_SECONDS = SWEEP_AFTER_SECONDS / 3

log = logging.getLogger("failover.worker")


class Engine:
    """Made on the loop that uses it, and closed there. `rules`: in place of the map's. `changed` is called when a route or a
    queue is closed or let go. `reloads`: how the configuration's files stood before it was read; set, they are watched."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        worker_name: str,
        queues: Sequence[str],
        slots: int,
        configuration: Configuration,
        keys: Keys,
        changed: Callable[[], None],
        *,
        rules: Rules | None = None,
        reloads: Stamp | None = None,
    ) -> None:
        self._rules, self._keys, self.configuration = rules, keys, configuration
        self._name, self._slots = worker_name, slots
        self._reload = Reload(configuration, reloads, self.adopt) if reloads is not None else None
        names = [route.name for route in configuration.routes.routes]
        self.breakers = Breakers(client, worker_name, names, rules or configuration.routes.rules, changed)
        self.gate = Gate(self.breakers.values(), slots)
        self.controls = Controls(client, queues, self.breakers, self.gate, changed)
        self._latencies = Latencies(client)
        self._providers = Providers(slots)
        self._client = client
        self.batcher = Batcher(client, random.random)
        self._cache = Cache(self.batcher.ask)
        self._allowances = Allowances(client, configuration.guardrail)
        self._ledger = Ledger(worker_name, self.batcher, lambda: self._allowances.steps)
        self._router = Router(self._providers, self.breakers, (), keys, Bookkeeper(self._ledger, self._allowances))
        self.executor = Executor(
            configuration, self._router, random.random, self._latencies, self._allowances, self._cache
        )
        self.adopt(configuration)

    def adopt(self, configuration: Configuration) -> None:
        """Go by it from now on."""
        routes, before = configuration.routes, {route.name: route.keys for route in self.configuration.routes.routes}
        renewed = [route.name for route in routes.routes if before.get(route.name, route.keys) != route.keys]
        self.configuration = configuration
        self._keys.of_tenants = configuration.tenant_keys
        self.breakers.adopt([route.name for route in routes.routes], self._rules or routes.rules)
        self.gate.regardless = routes.bypass or not routes.cold_queue
        self.controls.adopt(routes.routes)
        self._latencies.adopt([route.name for route in routes.routes] if configuration.routing.by_latency else [])
        self._allowances.adopt(configuration.budgets, configuration.guardrail)
        unpriced = [route.name for route in routes.routes if route.price is None]
        if unpriced and configuration.budgets.wants_prices:
            mend = "give each a `price` in routes.json, or pip install genai-prices"
            log.warning(
                "routes without a price are not called under a hard cap", extra={"routes": unpriced, "mend": mend}
            )
        self._cache.caching = configuration.caching
        self._router.routes = routes.routes
        self.executor.adopt(configuration)
        self.breakers.renew(renewed)

    async def learn(self) -> None:
        """What must be known before the first call. Raises RedisError."""
        await self._allowances.look()

    def look_again(self) -> None:
        """An operator changed what may run."""
        self._keys.forgive()
        self.controls.look_soon()

    def services(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps its knowledge up to date, for ever."""
        sweeping = maintenance.every(SWEEP_SECONDS, self._sweep, lambda: None)
        services = [
            self.batcher.run(),
            self.breakers.run(),
            self.controls.run(),
            self._latencies.run(),
            self._allowances.run(),
            sweeping,
        ]
        return [*services, self._reload.run()] if self._reload else services

    async def _sweep(self) -> None:
        """Rows of the ledger whose worker is gone."""
        ((released, ambiguous),) = await ask_async(self._client, [sweep(self._allowances.steps)])
        if released or ambiguous:
            log.warning("calls of a vanished worker", extra={"released": released, "may_be_billed": ambiguous})

    def view(self) -> Command:
        """What it tells operators of itself."""
        refused = self._reload.refused if self._reload else ""
        return worker_registry.view(self._name, self.configuration.routes, self._slots, refused, self._keys.told())

    async def close(self) -> None:
        await self._providers.close()
