"""routes.json as it is written, before the environment is filled in: hot and warm routes in order, cold tier, breaker.

The routing map of the SOP is valid without changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from producer.client import DEFAULT_QUEUE
from producer.errors import ConfigurationError, Problem, problems_of
from producer.policy import Capability, VariableName
from worker.breakers.local import RULES, Rules
from worker.routes.prices import Price

KEY_VARIABLES = {"anthropic": "ANTHROPIC_KEY", "openai": "OPENAI_API_KEY", "google": "GEMINI_API_KEY"}
Tier = Literal["hot", "warm"]


class _FromJson(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class RouteEntry(_FromJson):
    """One route as written. Times in seconds. `api_key_env` "": the route needs no key."""

    provider: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    model: Annotated[str, Field(min_length=1)]
    base_url: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(pattern=r"^[\w.@:/#+-]+( [\w.@:/#+-]+)*$", max_length=200)] | None = None
    api: Literal["openai", "anthropic"] = "openai"
    api_key_env: Literal[""] | VariableName | None = None
    api_key_file: str | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=86400)] = 60.0
    stream_timeout_seconds: Annotated[float, Field(gt=0, le=86400)] | None = (
        None  # until the first token; if set, the worker streams
    )
    max_answer_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = (
        8 * 1024 * 1024
    )  # a longer answer is not read
    retries: Annotated[int, Field(ge=0, le=5)] = 2  # after the first attempt of an execution
    capabilities: tuple[Capability, ...] | None = None  # None: unknown, so the route is never rejected for them
    parameters: Literal["any", "openai", "google", "mistral", "groq", "deepseek", "anthropic"] | None = None
    context_window: Annotated[int, Field(gt=0)] | None = None
    max_output_tokens: Annotated[int, Field(gt=0)] | None = None
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    canary: Annotated[float, Field(ge=0, le=100)] | None = None  # percent of the jobs that may use it
    rpm: Annotated[int, Field(gt=0)] | None = None  # calls in any minute, by all workers together
    tpm: Annotated[int, Field(gt=0)] | None = None
    max_concurrency: Annotated[int, Field(gt=0)] | None = None
    price: Price | None = None  # None: the list price is used, if it is known
    enabled: bool = True


class Cold(_FromJson):
    """The cold tier: a job that no hot or warm route can take stays in the durable queue, and `notify` gets a message."""

    mode: Literal["graceful_degrade"] = "graceful_degrade"
    queue: str = DEFAULT_QUEUE
    notify: tuple[str, ...] = ()


class BreakerEntry(_FromJson):
    """The rules of the breakers (`Rules`), as written."""

    failures: Annotated[int, Field(ge=1, le=1000)] = RULES.failures
    successes: Annotated[int, Field(ge=1, le=100)] = RULES.successes
    cooldown_seconds: Annotated[float, Field(gt=0, le=3600)] = RULES.cooldown_seconds
    longest_cooldown_seconds: Annotated[float, Field(gt=0, le=86400)] = RULES.longest_cooldown_seconds

    @property
    def rules(self) -> Rules:
        longest = max(self.cooldown_seconds, self.longest_cooldown_seconds)
        return Rules(self.failures, self.successes, self.cooldown_seconds, longest)


class RouteMap(_FromJson):
    """The whole file."""

    hot: tuple[RouteEntry, ...] = ()
    warm: tuple[RouteEntry, ...] = ()
    cold: Cold = Cold()
    breaker: BreakerEntry = BreakerEntry()

    @model_validator(mode="after")
    def names_are_of_one_route(self) -> RouteMap:
        names = [name for name, _, _ in named(self)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two routes are named {', '.join(twice)}: give one another `name`")
        return self


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def read_map(path: Path) -> RouteMap:
    """Read one file, without the environment. Raises ConfigurationError with every problem in it."""
    where = str(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        fix = "set ROUTES_FILE to the routing map"
        raise ConfigurationError([Problem(where, "", error.strerror or str(error), fix)]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError([Problem(where, "", f"is not JSON: {error}")]) from None
    try:
        return RouteMap.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(problems_of(where, error)) from None


def named(route_map: RouteMap) -> Iterator[tuple[str, Tier, RouteEntry]]:
    """Yield (name, tier, entry) of every route. The name is its own or provider/model, with `#2` for the second one."""
    seen: dict[str, int] = {}
    tiers: tuple[tuple[Tier, tuple[RouteEntry, ...]], ...] = (("hot", route_map.hot), ("warm", route_map.warm))
    for tier, entries in tiers:
        for entry in entries:
            name = entry.name or f"{entry.provider}/{entry.model}"
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), tier, entry


def key_variable(entry: RouteEntry) -> str:
    """The environment variable that holds the route's key, unless the route names a key file."""
    return entry.api_key_env or KEY_VARIABLES.get(entry.provider) or f"{entry.provider.upper()}_API_KEY"
