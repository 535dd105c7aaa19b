"""The routes of routes.json that can be called, with the values of the environment filled in.

A route is left out if its API key or a variable in its URL is missing; the worker logs the reason when it starts. If no
route is left, the file is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from producer.client import DEFAULT_QUEUE
from producer.environment import Environment, find_configuration, flag, packaged
from producer.errors import ConfigurationError, Problem
from worker.breakers.local import RULES, Rules
from worker.routes.api_keys import Key, of_file, of_variable
from worker.routes.known_providers import (
    KnownProvider,
    a_first_key,
    map_for,
    shipped_map_is_meant,
    usual_variables,
    with_key,
)
from worker.routes.parameters import LISTS, NATIVE, Parameters, of_host
from worker.routes.prices import Price, price_list, public_price
from worker.routes.schema import Cold, RouteEntry, RouteMap, Tier, key_variable, named, read_map

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,127})(?::-([^{}]*))?\}")


@dataclass(frozen=True)
class Route:
    """A route that can be called. `keys`: best first; the repr leaves them out, so that no log shows them.

    Routes with the same `account` share their keys, and cooldowns of scope account.
    """

    name: str
    tier: Tier
    entry: RouteEntry
    base_url: str
    keys: tuple[Key, ...] = ()
    account: str = ""
    model: str = ""  # as sent to the provider: the entry's, with variables filled in

    def __post_init__(self) -> None:
        if not self.model:
            object.__setattr__(self, "model", self.entry.model)

    def __repr__(self) -> str:
        return f"Route({self.name}, {self.tier})"

    @property
    def price(self) -> Price | None:
        """The price in routes.json, else the list price; None if neither is known."""
        return self.entry.price or public_price(self.entry.provider, self.model)

    @cached_property
    def price_version(self) -> str:
        """The source of the price and its rates, as each ledger row records them; "" without a price."""
        price = self.price
        source = "routes.json" if self.entry.price else price_list()
        return f"{source} {price.rates}" if price else ""

    @cached_property
    def parameters(self) -> Parameters | None:
        """The parameters that the route accepts; None if unknown: everything is sent."""
        if self.entry.parameters == "any":
            return None
        if self.entry.api == "anthropic":
            return NATIVE
        return LISTS[self.entry.parameters] if self.entry.parameters else of_host(self.base_url)


@dataclass(frozen=True)
class LeftOut:
    """A route of routes.json that cannot be called now. `why`: the reason, as text for people."""

    name: str
    tier: Tier
    why: str
    provider: str = ""


@dataclass(frozen=True)
class Routes:
    """The usable routes of routes.json in the order to try them: hot, then warm; and the map's other settings."""

    routes: tuple[Route, ...]
    left_out: tuple[LeftOut, ...]
    cold: Cold
    rules: Rules = RULES
    cold_queue: bool = True  # ENABLE_COLD_QUEUE: jobs that no route can take now wait in the queue
    built_in: tuple[str, ...] = ()  # no routes.json fits: the routes follow from these variables with keys
    origin: str = ""  # which map this is, and why, as text for people
    bypass: bool = False  # BYPASS_ROUTER: only the first route is called, and breakers and policies are ignored

    def switched(self, environment: Environment) -> Routes:
        """A copy with the switches of the environment. They also work while the changed files cannot be used."""
        warm = flag(environment, "ENABLE_WARM_FALLBACK", default=True)
        return replace(
            self,
            routes=tuple(route for route in self.routes if warm or route.tier == "hot") or self.routes,
            cold_queue=flag(environment, "ENABLE_COLD_QUEUE", default=True),
            bypass=flag(environment, "BYPASS_ROUTER", default=False),
        )

    @property
    def built_in_words(self) -> str:
        """That the built-in map is used, and why."""
        used = ", ".join(f"{route.tier} {route.name}" for route in self.routes)
        are = "is" if len(self.built_in) == 1 else "are"
        return (
            f"routes.json is the shipped example, whose own variables are not set; {', '.join(self.built_in)} {are}, so "
            f"the routes are {used} — `failover routes init` writes them to a file of your own"
        )

    @property
    def names(self) -> set[str]:
        """The names of all routes in routes.json, including those left out."""
        return {route.name for route in self.routes} | {out.name for out in self.left_out}

    @property
    def queues(self) -> list[str]:
        """The queues of a worker without `--queue`: the producers' default, and `cold.queue`."""
        return list(dict.fromkeys([DEFAULT_QUEUE, self.cold.queue]))


def load_routes(environment: Environment) -> Routes:
    """Read ROUTES_FILE. Raises ConfigurationError with every problem in it."""
    path = find_configuration("routes.json", "ROUTES_FILE", environment)
    found = with_key(environment)
    if environment.get("ROUTES_FILE"):
        why = "ROUTES_FILE names it"
    elif not _is_shipped(path):
        why = "it is in the working folder"
    else:
        usable, _ = _usable(read_map(path), str(path), environment)
        if found and not shipped_map_is_meant([route.entry.base_url for route in usable], environment):
            return _built_in(found, environment)
        why = "the shipped example, whose variables are set"
    return replace(read_routes(path, environment), origin=f"{path}: {why}")


def _is_shipped(path: Path) -> bool:
    """Whether the map is the example that nobody has changed, wherever it lies: a clone has its own copy."""
    try:
        return path.read_bytes() == packaged("routes.json").read_bytes()
    except OSError:
        return False


def _built_in(found: Sequence[tuple[KnownProvider, str]], environment: Environment) -> Routes:
    """The map for the keys that are there, while the shipped example can use none of them."""
    route_map = RouteMap.model_validate(map_for(found, environment))
    routes, left_out = _usable(route_map, "the built-in map", environment)
    built_in = tuple(variable for _, variable in found)
    known = Routes(tuple(routes), tuple(left_out), route_map.cold, route_map.breaker.rules, built_in=built_in)
    return replace(known, origin=known.built_in_words).switched(environment)


def load_addresses(environment: Environment) -> tuple[str, ...]:
    """`cold.notify` of ROUTES_FILE; () if the file cannot be used."""
    try:
        return load_routes(environment).cold.notify
    except ConfigurationError:
        return ()


def read_routes(path: Path, environment: Environment) -> Routes:
    """As `load_routes`, for the given file."""
    where, route_map = str(path), read_map(path)
    routes, left_out = _usable(route_map, where, environment)
    if not routes:
        problems = [Problem(where, out.name, out.why) for out in left_out]
        raise ConfigurationError(
            [
                Problem(where, "", "no route can be used", _fix(environment)),
                *problems,
            ]
        )
    if all(route.entry.canary is not None and route.entry.canary < 100 for route in routes):
        fix = "remove `canary` from one route, or fix a route that was left out"
        raise ConfigurationError(
            [Problem(where, "", "all usable routes are canaries, so most jobs have no route", fix)]
        )
    return Routes(tuple(routes), tuple(left_out), route_map.cold, route_map.breaker.rules).switched(environment)


def _fix(environment: Environment) -> str:
    if found := with_key(environment):
        keys = ", ".join(variable for _, variable in found)
        return f"set what is missing for one of these routes; or overwrite it by a map for {keys}: failover routes init --force"
    return f"set what is missing for one of these routes; or set {a_first_key()}, then: failover init"


def _usable(route_map: RouteMap, where: str, environment: Environment) -> tuple[list[Route], list[LeftOut]]:
    routes: list[Route] = []
    left_out: list[LeftOut] = []
    for name, tier, entry in named(route_map):
        base_url, missing = _interpolate(entry.base_url, environment)
        model, missing_in_model = _interpolate(entry.model, environment)
        if why := _unusable(entry, tier, [*missing, *missing_in_model], environment):
            left_out.append(LeftOut(name, tier, why, entry.provider))
            continue
        keys, source = _keys(entry, environment)
        if not keys and source:
            why = f"{source} contains no readable key" if entry.api_key_file else f"{source} is not set"
            left_out.append(LeftOut(name, tier, why, entry.provider))
            continue
        if not is_http_url(base_url):
            raise ConfigurationError(
                [
                    Problem(
                        where,
                        f"{name}.baseUrl",
                        "is not an http(s) URL",
                        "as in https://api.openai.com/v1",
                    )
                ]
            )
        account = f"{entry.provider} {source}"
        routes.append(Route(name, tier, entry, base_url.rstrip("/"), keys, account, model))
    return routes, left_out


def is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _unusable(entry: RouteEntry, tier: Tier, missing: list[str], environment: Environment) -> str | None:
    if not entry.enabled:
        return "enabled is false"
    if tier == "warm" and not flag(environment, "ENABLE_WARM_FALLBACK", default=True):
        return "ENABLE_WARM_FALLBACK is off"
    if missing:
        return f"{', '.join(dict.fromkeys(missing))} is not set"
    return None


def _keys(entry: RouteEntry, environment: Environment) -> tuple[tuple[Key, ...], str]:
    """(the keys; the file or variable that holds them, "" for a route that needs no key)."""
    if entry.api_key_file:
        path, missing = _interpolate(entry.api_key_file, environment)
        return (() if missing else of_file(Path(path))), entry.api_key_file
    if entry.api_key_env == "":
        return (), ""
    variable = key_variable(entry)
    names = (variable,) if entry.api_key_env else (variable, *usual_variables(entry.provider))
    used = next((name for name in names if environment.get(name, "").strip()), variable)
    return of_variable(used, environment), used


def key_files(path: Path, environment: Environment) -> list[Path]:
    """The key files that a routes.json names; of a file that cannot be read, none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        named = [
            entry["apiKeyFile"] for tier in ("hot", "warm") for entry in data.get(tier, ()) if entry.get("apiKeyFile")
        ]
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return []
    return [Path(_interpolate(str(name), environment)[0]) for name in dict.fromkeys(map(str, named))]


def _interpolate(text: str, environment: Environment) -> tuple[str, list[str]]:
    """(the text with `${NAME}` and `${NAME:-default}` filled in; the names that have neither value nor default)."""
    missing: list[str] = []

    def value(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        if environment.get(name):  # `${BASE}/v1` with a BASE that ends in a slash has one slash, not two
            return environment[name].rstrip("/") if text.startswith("/", found.end()) else environment[name]
        if default is None:
            missing.append(name)
            return ""
        return str(default)

    return _VARIABLE.sub(value, text), missing
