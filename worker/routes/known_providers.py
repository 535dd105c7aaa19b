"""Providers whose usual key variable is known: with one of these keys alone there is a routing map that works.

The table is known_providers.json: endpoint, dialect, key variables, a model and a cheaper one, with the source of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from producer.environment import Environment
from worker.routes.names import canonical


class KnownProvider(BaseModel):
    """One row. `variables`: where its key usually is, the first one first. `cheaper`: a second model of the same provider."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    variables: tuple[str, ...]
    api: Literal["openai", "anthropic"]
    base_url: str
    model: str
    cheaper: str
    source: str

    def variable(self, environment: Environment) -> str:
        """The variable that holds its key; "" if none does."""
        return next((name for name in self.variables if environment.get(name, "").strip()), "")

    def route(self, model: str, variable: str) -> dict[str, Any]:
        """An entry of routes.json. Its own variable, as its SDK reads it, leads to another endpoint."""
        base_url = f"${{{self.name.upper()}_BASE_URL:-{self.base_url}}}"
        entry = {"provider": self.name, "model": model, "baseUrl": base_url, "apiKeyEnv": variable}
        return entry if self.api == "openai" else {**entry, "api": self.api}


class _Table(BaseModel):
    checked: str  # the date
    providers: tuple[KnownProvider, ...]


@cache
def known_providers() -> tuple[KnownProvider, ...]:
    """The table, in the order in which providers are preferred."""
    return _Table.model_validate_json(Path(__file__).with_suffix(".json").read_bytes()).providers


def usual_variables(provider: str) -> tuple[str, ...]:
    """Where the key of a provider usually is; () for one that is not in the table."""
    name = canonical(provider)
    return next((known.variables for known in known_providers() if known.name == name), ())


def with_key(environment: Environment) -> list[tuple[KnownProvider, str]]:
    """The known providers whose key is in the environment, each with the variable."""
    found = ((provider, provider.variable(environment)) for provider in known_providers())
    return [(provider, variable) for provider, variable in found if variable]


def map_for(found: Sequence[tuple[KnownProvider, str]]) -> dict[str, Any]:
    """A routing map: the first provider's model is hot; the cheaper models are warm, those of other providers first."""
    (first, variable), *others = found
    warm = [provider.route(provider.cheaper, name) for provider, name in others]
    return {
        "hot": [first.route(first.model, variable)],
        "warm": [*warm, first.route(first.cheaper, variable)],
        "cold": {"mode": "graceful_degrade", "queue": "ai-tasks"},
    }
