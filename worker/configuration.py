"""The configuration of a worker (routes, policies, keys), and its reload while the worker runs.

A changed file is read within about two seconds. If it cannot be used, the worker logs a warning and keeps the old
configuration. A running job keeps the configuration that it began with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from producer.environment import Environment, find_configuration, load_environment
from producer.errors import ConfigurationError, Problem
from producer.policy import Policies, load_policies
from worker.history.archive import Archive, archive_of
from worker.history.policy import HistoryPolicy, load_history_policy
from worker.money.answer_cache import Caching, load_caching
from worker.money.billing_alerts import Guardrail
from worker.money.caps import Budgets, load_budgets
from worker.network import Network
from worker.objectives.policy import SloPolicy, load_slo_policy
from worker.routes.api_keys import Key, TenantKeys, of_variable
from worker.routes.names import canonical
from worker.routes.policy import Routing, load_routing
from worker.routes.route import Routes, key_files, load_routes
from worker.schedules.policy import Schedules, load_schedules

log = logging.getLogger("failover.worker")

LOOK_SECONDS = 1.0

Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Configuration:
    """The configuration read from the files and the environment at one time. `tenant_keys`: by tenant and provider."""

    policies: Policies
    routes: Routes
    routing: Routing = field(default_factory=Routing)
    tenant_keys: TenantKeys = field(default_factory=dict)
    budgets: Budgets = field(default_factory=Budgets)
    guardrail: Guardrail = field(default_factory=Guardrail)
    caching: Caching = field(default_factory=Caching)
    history: HistoryPolicy = field(default_factory=HistoryPolicy)
    archive: Archive | None = field(default=None, compare=False)  # a worker keeps this and the next of its start
    network: Network = field(default_factory=Network)
    schedules: Schedules = field(default_factory=Schedules)
    objectives: SloPolicy = field(default_factory=SloPolicy)

    @classmethod
    def load(cls, environment: Environment, *, tenants_keys: bool = True) -> Configuration:
        """Read the configuration. `tenants_keys`: also read the tenants' API keys, which only a worker needs. Raises
        ConfigurationError with every problem of the first wrong file."""
        policies, routes = load_policies(environment), load_routes(environment)
        try:
            routing = load_routing(environment, policies.job_types, routes)
        except ConfigurationError:
            if not routes.bypass:
                raise
            routing = Routing()  # BYPASS_ROUTER must work also while routing.yaml is wrong
        for route in routes.routes:
            _ = route.price, route.price_version  # load the list prices now, so that no job waits for it
        keys = _tenant_keys(policies, routes, environment) if tenants_keys else {}
        rest = (
            load_budgets(environment),
            Guardrail.of(environment),
            load_caching(environment),
            load_history_policy(environment),
            archive_of(environment),
            Network.of(environment),
            load_schedules(environment, policies.job_types),
            load_slo_policy(environment),
        )
        return cls(policies, routes, routing, keys, *rest)


@dataclass
class Current:
    """Holds the configuration in force, which is replaced as a whole. An execution reads it once, when it begins."""

    configuration: Configuration


def _tenant_keys(policies: Policies, routes: Routes, environment: Environment) -> TenantKeys:
    served = {canonical(each.entry.provider) for each in routes.routes} | {
        canonical(o.provider) for o in routes.left_out
    }
    found: dict[str, dict[str, tuple[Key, ...]]] = {}
    problems = []
    for tenant, policy in policies.tenants.tenants.items():
        for provider, variable in policy.keys.items():
            where = f"tenants.{tenant}.keys.{provider}"
            keys = of_variable(variable, environment, tenant=tenant)
            if canonical(provider) not in served:
                fix = f"there are {', '.join(sorted(served))}"
                problems.append(Problem("tenants.yaml", where, "no route uses this provider", fix))
            elif not keys:
                fix = "set it, otherwise its jobs are billed to our account"
                problems.append(Problem("tenants.yaml", where, f"{variable} is not set", fix))
            found.setdefault(tenant, {})[canonical(provider)] = keys
    if problems:
        raise ConfigurationError(problems)
    return found


def stamp(environment: Callable[[], Environment] = load_environment) -> Stamp:
    """The time, size and inode of each configuration file, to notice changes. Files that cannot be read are left out."""
    try:
        found = environment()
    except ConfigurationError:
        return _stamp_of([Path(".env")])
    policies = find_configuration("policies", "POLICIES_DIR", found)
    routes = find_configuration("routes.json", "ROUTES_FILE", found)
    names = (
        "jobs.yaml",
        "routing.yaml",
        "tenants.yaml",
        "budgets.yaml",
        "cache.yaml",
        "history.yaml",
        "schedules.yaml",
        "slo.yaml",
    )
    yaml = [policies / name for name in names]
    return _stamp_of([Path(".env"), routes, *yaml, *key_files(routes, found)])


class Reload:
    """Watches the configuration files. `adopt` is called on the event loop with each new configuration. `seen`: the stamp
    of the files before `current` was read."""

    def __init__(
        self,
        current: Configuration,
        seen: Stamp,
        adopt: Callable[[Configuration], None],
        environment: Callable[[], Environment] = load_environment,
    ) -> None:
        self._current, self._seen, self._adopt, self._environment = current, seen, adopt, environment
        self._files = _files(seen)  # must not disappear: a default or packaged file would silently replace them
        self.refused = ""  # why the changed files cannot be used; "" if they can

    async def look(self) -> None:
        """Read the configuration if its files have changed, and adopt it."""
        found = await asyncio.to_thread(self._changed)
        if found is not None and found != self._current:
            self._warn(found)
            self._current = found
            self._adopt(found)
            log.info("configuration reloaded", extra={"routes": [route.name for route in found.routes.routes]})

    def _warn(self, found: Configuration) -> None:
        """Log effects of a change that may not be intended."""
        known = {out.name for out in self._current.routes.left_out}
        for out in (out for out in found.routes.left_out if out.name not in known):
            log.warning("route left out", extra={"route": out.name, "why": out.why})
        if found.routes.bypass:
            log.warning("BYPASS_ROUTER is on: every job goes to the first route, whatever is known of it")
        if found.routes.queues != self._current.routes.queues:
            log.warning("cold.queue has changed: workers listen on it after their next start")

    def _changed(self) -> Configuration | None:
        """The new configuration; if it cannot be used, the old one with the new switches; None if nothing has changed."""
        now = stamp(self._environment)
        if now == self._seen:
            return None
        self._seen = now
        self.refused = ""
        try:
            return self._read(now)
        except ConfigurationError as error:
            self.refused = str(error.problems[0])
            log.warning("configuration refused, the old one stays", extra={"problems": str(error).splitlines()})
        except Exception as error:
            self.refused = type(error).__name__
            log.exception("configuration cannot be read, the old one stays")
        try:
            return replace(self._current, routes=self._current.routes.switched(self._environment()))
        except ConfigurationError:
            return None

    def _read(self, now: Stamp) -> Configuration:
        if gone := [path for path in self._files if not Path(path).exists()]:
            fix = "restore the file, or restart the worker without it"
            raise ConfigurationError([Problem(path, "", "is gone", fix) for path in gone])
        found = Configuration.load(self._environment())
        self._files = _files(now)
        return found


def _files(seen: Stamp) -> list[str]:
    return [path for path, *_ in seen if Path(path).suffix in (".json", ".yaml")]


def _stamp_of(paths: list[Path]) -> Stamp:
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except (OSError, ValueError):  # ValueError: not a valid path
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)
