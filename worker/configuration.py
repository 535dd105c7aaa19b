"""What a worker goes by (routes, policies, keys), and its reload while the worker runs.

A changed file is read within a second or two. One that cannot be used is refused aloud, and the old configuration stays;
jobs that run keep the one that they began with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from producer.environment import Environment, find_configuration, load_environment
from producer.errors import ConfigurationError, Problem
from producer.policy import Policies, load_policies
from worker.keys import Key, of_variable
from worker.routes import Routes, key_files, load_routes
from worker.routing import Routing, load_routing

log = logging.getLogger("failover.worker")

LOOK_SECONDS = 1.0

TenantKeys = Mapping[str, Mapping[str, tuple[Key, ...]]]
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Configuration:
    """One state of the files and the environment. `tenant_keys`: by tenant and provider."""

    policies: Policies
    routes: Routes
    routing: Routing = field(default_factory=Routing)
    tenant_keys: TenantKeys = field(default_factory=dict)

    @classmethod
    def load(cls, environment: Environment) -> Configuration:
        """Raises ConfigurationError."""
        policies, routes = load_policies(environment), load_routes(environment)
        routing = load_routing(environment, policies.job_types, routes)
        for route in routes.routes:
            _ = route.price  # list prices are read now, and not when a job waits for them
        return cls(policies, routes, routing, _tenant_keys(policies, environment))


def _tenant_keys(policies: Policies, environment: Environment) -> TenantKeys:
    found: dict[str, dict[str, tuple[Key, ...]]] = {}
    for tenant, policy in policies.tenants.tenants.items():
        for provider, variable in policy.keys.items():
            keys = of_variable(variable, environment, tenant=tenant)
            if not keys:
                mend = "set it, or its jobs would go to our account"
                where = f"tenants.{tenant}.keys.{provider}"
                raise ConfigurationError([Problem("tenants.yaml", where, f"{variable} is not set", mend)])
            found.setdefault(tenant, {})[provider] = keys
    return found


class Reload:
    """Watches the files that a configuration was read from. `adopt` is called with each new one, on the loop."""

    def __init__(
        self, adopt: Callable[[Configuration], None], environment: Callable[[], Environment] = load_environment
    ) -> None:
        self._adopt, self._environment = adopt, environment
        self._seen = self._stamp()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            found = await asyncio.to_thread(self._changed)
            if isinstance(found, Configuration):
                self._adopt(found)
                log.info("configuration reloaded", extra={"routes": [route.name for route in found.routes.routes]})
            elif found is not None:
                log.error("configuration refused, the old one stays", extra={"problems": str(found).splitlines()})

    def _changed(self) -> Configuration | ConfigurationError | None:
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            return Configuration.load(self._environment())
        except ConfigurationError as error:
            return error

    def _stamp(self) -> Stamp:
        """When each file was last written; what cannot be read has none."""
        try:
            environment = self._environment()
        except ConfigurationError:
            return _stamp_of([Path(".env")])
        policies = find_configuration("policies", "POLICIES_DIR", environment)
        routes = find_configuration("routes.json", "ROUTES_FILE", environment)
        yaml = [policies / name for name in ("jobs.yaml", "routing.yaml", "tenants.yaml")]
        return _stamp_of([Path(".env"), routes, *yaml, *key_files(routes, environment)])


def _stamp_of(paths: list[Path]) -> Stamp:
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)
