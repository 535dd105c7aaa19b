"""routes.json: the hot and warm routes in order, and the cold tier. The SOP's map works verbatim.

A route that lacks its key or its URL's variable is left out, with the reason said at start; a map with no route left
is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from producer.client import DEFAULT_QUEUE
from producer.environment import Environment, find_configuration, flag
from producer.errors import ConfigurationError, Problem, problems_of
from producer.policy import Capability
from worker.breaker import RULES, Rules
from worker.keys import Key, of_file, of_variable
from worker.parameters import LISTS, Parameters, of_host
from worker.prices import Price, public_price

KEY_VARIABLES = {"anthropic": "ANTHROPIC_KEY", "openai": "OPENAI_API_KEY", "google": "GEMINI_API_KEY"}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

Tier = Literal["hot", "warm"]


class _FromJson(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class RouteEntry(_FromJson):
    """One route as written. Times in seconds; `api_key_env` "" is a route that needs no key."""

    provider: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    model: Annotated[str, Field(min_length=1)]
    base_url: Annotated[str, Field(min_length=1)]
    name: str | None = None
    api: Literal["openai", "anthropic"] = "openai"
    api_key_env: str | None = None
    api_key_file: str | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    stream_timeout_seconds: Annotated[float, Field(gt=0)] | None = None  # to the first token; set: the worker streams
    retries: Annotated[int, Field(ge=0, le=5)] = 2  # after the first attempt, in one execution; 0 is none
    capabilities: tuple[Capability, ...] | None = None  # None: not known, so not held against it
    parameters: Literal["any", "openai", "google", "mistral", "groq", "deepseek", "anthropic"] | None = None
    context_window: Annotated[int, Field(gt=0)] | None = None
    max_output_tokens: Annotated[int, Field(gt=0)] | None = None
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    canary: Annotated[float, Field(ge=0, le=100)] | None = None  # percent of the jobs
    rpm: Annotated[int, Field(gt=0)] | None = None  # kept for a limiter; nothing holds to these three yet
    tpm: Annotated[int, Field(gt=0)] | None = None
    max_concurrency: Annotated[int, Field(gt=0)] | None = None
    price: Price | None = None  # None: not known here
    enabled: bool = True


class Cold(_FromJson):
    """What becomes of a job that neither hot nor warm can take: it stays in the durable queue, and people are told."""

    mode: Literal["graceful_degrade"] = "graceful_degrade"
    queue: str = DEFAULT_QUEUE
    notify: tuple[str, ...] = ()


class BreakerEntry(_FromJson):
    """When a route opens: `Rules` as written."""

    failures: Annotated[int, Field(ge=1, le=1000)] = RULES.failures
    successes: Annotated[int, Field(ge=1, le=100)] = RULES.successes
    cooldown_seconds: Annotated[float, Field(gt=0, le=3600)] = RULES.cooldown_seconds
    longest_cooldown_seconds: Annotated[float, Field(gt=0, le=86400)] = RULES.longest_cooldown_seconds

    @property
    def rules(self) -> Rules:
        longest = max(self.cooldown_seconds, self.longest_cooldown_seconds)
        return Rules(self.failures, self.successes, self.cooldown_seconds, longest)


class RouteMap(_FromJson):
    hot: tuple[RouteEntry, ...] = ()
    warm: tuple[RouteEntry, ...] = ()
    cold: Cold = Cold()
    breaker: BreakerEntry = BreakerEntry()


@dataclass(frozen=True)
class Route:
    """A route that can be called. `keys`, the best first, are never shown: they are left out of the repr.

    Routes of one `account` share their keys, and what a provider says of them.
    """

    name: str
    tier: Tier
    entry: RouteEntry
    base_url: str
    keys: tuple[Key, ...] = ()
    account: str = ""
    model: str = ""  # as sent: the entry's, filled in

    def __post_init__(self) -> None:
        if not self.model:
            object.__setattr__(self, "model", self.entry.model)

    def __repr__(self) -> str:
        return f"Route({self.name}, {self.tier})"

    @property
    def price(self) -> Price | None:
        """The map's, else the list price, if any is known."""
        return self.entry.price or public_price(self.entry.provider, self.model)

    @cached_property
    def parameters(self) -> Parameters | None:
        """What the route takes; None: nobody knows, or it has an adapter of its own."""
        if self.entry.parameters == "any" or self.entry.api != "openai":
            return None
        return LISTS[self.entry.parameters] if self.entry.parameters else of_host(self.base_url)


@dataclass(frozen=True)
class LeftOut:
    """A route of the map that cannot be used now, and why."""

    name: str
    tier: Tier
    why: str


@dataclass(frozen=True)
class Routes:
    """The routing map as the router walks it: hot in order, then warm."""

    routes: tuple[Route, ...]
    left_out: tuple[LeftOut, ...]
    cold: Cold
    rules: Rules = RULES
    cold_queue: bool = True  # ENABLE_COLD_QUEUE: jobs that no route can take now wait
    bypass: bool = False  # BYPASS_ROUTER: only the first route is called, whatever is known of it

    @property
    def queues(self) -> list[str]:
        """What a worker listens on unless told otherwise: the producers' default, and the queue of the map."""
        return list(dict.fromkeys([DEFAULT_QUEUE, self.cold.queue]))


def load_routes(environment: Environment) -> Routes:
    """ROUTES_FILE. Raises ConfigurationError with every problem in it."""
    return read_routes(find_configuration("routes.json", "ROUTES_FILE", environment), environment)


def load_addresses(environment: Environment) -> tuple[str, ...]:
    """cold.notify of ROUTES_FILE; none while the map cannot be used."""
    try:
        return load_routes(environment).cold.notify
    except ConfigurationError:
        return ()


def read_map(path: Path) -> RouteMap:
    """One file as it is written, whatever the environment. Raises ConfigurationError with every problem in it."""
    where = str(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        mend = "set ROUTES_FILE to the routing map"
        raise ConfigurationError([Problem(where, "", error.strerror or str(error), mend)]) from None
    except ValueError as error:
        raise ConfigurationError([Problem(where, "", f"is not JSON: {error}")]) from None
    try:
        return RouteMap.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(problems_of(where, error)) from None


def read_routes(path: Path, environment: Environment) -> Routes:
    """`load_routes` for one file."""
    where, route_map = str(path), read_map(path)
    routes, left_out = _usable(route_map, where, environment)
    if not routes:
        problems = [Problem(where, out.name, out.why) for out in left_out]
        raise ConfigurationError(
            [Problem(where, "", "no route can be used", "one is enough: set what one of these lacks"), *problems]
        )
    cold_queue = flag(environment, "ENABLE_COLD_QUEUE", default=True)
    bypass = flag(environment, "BYPASS_ROUTER", default=False)
    return Routes(tuple(routes), tuple(left_out), route_map.cold, route_map.breaker.rules, cold_queue, bypass)


def _usable(route_map: RouteMap, where: str, environment: Environment) -> tuple[list[Route], list[LeftOut]]:
    routes: list[Route] = []
    left_out: list[LeftOut] = []
    for name, tier, entry in named(route_map):
        base_url, missing = _interpolate(entry.base_url, environment)
        model, missing_in_model = _interpolate(entry.model, environment)
        if why := _unusable(entry, tier, [*missing, *missing_in_model], environment):
            left_out.append(LeftOut(name, tier, why))
            continue
        keys, source = _keys(entry, environment)
        if not keys and source:
            left_out.append(LeftOut(name, tier, f"{source} is not set"))
            continue
        if not is_http_url(base_url):
            raise ConfigurationError(
                [Problem(where, f"{name}.baseUrl", "is not an http(s) URL", "as in https://api.openai.com/v1")]
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


def named(route_map: RouteMap) -> Iterator[tuple[str, Tier, RouteEntry]]:
    """Every entry with its name: its own, or provider/model, with #2 for the second of that name."""
    seen: dict[str, int] = {}
    tiers: tuple[tuple[Tier, tuple[RouteEntry, ...]], ...] = (("hot", route_map.hot), ("warm", route_map.warm))
    for tier, entries in tiers:
        for entry in entries:
            name = entry.name or f"{entry.provider}/{entry.model}"
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), tier, entry


def _keys(entry: RouteEntry, environment: Environment) -> tuple[tuple[Key, ...], str]:
    """(the keys; the file or variable that they are read from, "" for a route that needs none)."""
    if entry.api_key_file:
        path, missing = _interpolate(entry.api_key_file, environment)
        return (() if missing else of_file(Path(path))), entry.api_key_file
    if entry.api_key_env == "":
        return (), ""
    variable = key_variable(entry)
    return of_variable(variable, environment), variable


def key_files(path: Path, environment: Environment) -> list[Path]:
    """The key files that a map names, as far as it can be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        named = [
            entry["apiKeyFile"] for tier in ("hot", "warm") for entry in data.get(tier, ()) if entry.get("apiKeyFile")
        ]
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return []
    return [Path(_interpolate(str(name), environment)[0]) for name in dict.fromkeys(map(str, named))]


def key_variable(entry: RouteEntry) -> str:
    """The variable that holds a route's key, unless it names a file."""
    return entry.api_key_env or KEY_VARIABLES.get(entry.provider) or f"{entry.provider.upper()}_API_KEY"


def _interpolate(text: str, environment: Environment) -> tuple[str, list[str]]:
    """`${NAME}` and `${NAME:-default}` filled in, and the names that have neither a value nor a default."""
    missing: list[str] = []

    def value(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        if environment.get(name):
            return environment[name]
        if default is None:
            missing.append(name)
            return ""
        return str(default)

    return _VARIABLE.sub(value, text), missing
