"""Providers whose usual key variable is known: with one of these keys alone there is a routing map that works.

The table is known_providers.json: endpoint, dialect, key variables, a model and a cheaper one with their list prices, and the
source of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from producer.environment import Environment
from producer.errors import ConfigurationError, Problem
from worker.routes.names import canonical
from worker.routes.prices import Price


class KnownProvider(BaseModel):
    """One row. `variables`: where its key usually is, the first one first. `cheaper`: a second model of the same provider.
    `prices`: of both, as they stand in genai-prices on the date of the table; a test compares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    variables: tuple[str, ...]
    api: Literal["openai", "anthropic"]
    base_url: str
    model: str
    cheaper: str
    prices: dict[str, Price]
    source: str

    def variable(self, environment: Environment) -> str:
        """The variable that holds its key; "" if none does."""
        return next((name for name in self.variables if environment.get(name, "").strip()), "")

    def gateway(self, environment: Environment) -> str:
        """The variable that leads its calls to another host, such as OPENAI_BASE_URL; "" if none does.

        A URL at the provider's own host is no gateway: SDKs want it with and without the path that this table has.
        """
        own = _host(self.base_url)
        return next((name for name in self._url_variables if _host(environment.get(name, "")) not in ("", own)), "")

    def route(self, model: str, variable: str, environment: Environment) -> dict[str, Any]:
        """An entry of routes.json: a gateway of the environment, else its own endpoint."""
        names = self._url_variables
        changeable = self.gateway(environment) or ("" if any(map(environment.get, names)) else names[0])
        base_url = f"${{{changeable}:-{self.base_url}}}" if changeable else self.base_url
        entry: dict[str, Any] = {"provider": self.name, "model": model, "baseUrl": base_url, "apiKeyEnv": variable}
        entry["price"] = self.prices[model].model_dump(by_alias=True, exclude_none=True)
        return entry if self.api == "openai" else {**entry, "api": self.api}

    @property
    def _url_variables(self) -> list[str]:
        """OPENAI_BASE_URL for OPENAI_API_KEY, and so on."""
        prefixes = (name.removesuffix("_KEY").removesuffix("_API") for name in self.variables)
        return [f"{prefix}_BASE_URL" for prefix in dict.fromkeys(prefixes)]


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


def keys_found(environment: Environment) -> list[tuple[KnownProvider, str]]:
    """As `with_key`. Raises ConfigurationError if there is none."""
    if found := with_key(environment):
        return found
    raise ConfigurationError([Problem("environment", "", "no known API key is set", f"set {a_first_key()}")])


def a_first_key() -> str:
    """The variables of which one is enough to begin, for people."""
    return f"one of {', '.join(provider.variables[0] for provider in known_providers())}"


def shipped_map_is_meant(base_urls: Sequence[str], environment: Environment) -> bool:
    """Whether the environment is that of the shipped routes.json. `base_urls`: as written, of its routes that can be called.

    Its variables say so, as far as no other tool sets them. ANTHROPIC_BASE_URL beside ANTHROPIC_API_KEY is what Anthropic's
    own tools read, for a gateway in Anthropic's dialect; the shipped map's is beside ANTHROPIC_KEY, in OpenAI's.
    """
    found = {provider.name: provider for provider, _ in with_key(environment)}
    if found.keys() == {"openai"}:  # its own route serves
        return bool(base_urls) and not found["openai"].gateway(environment)
    anthropic = found.get("anthropic")
    ours = bool(anthropic and anthropic.gateway(environment) and environment.get("ANTHROPIC_KEY", "").strip())
    own = {"${ANTHROPIC_BASE_URL_2}", "${GEMINI_OPENAI_COMPAT}", *(["${ANTHROPIC_BASE_URL}"] if ours else [])}
    return not own.isdisjoint(base_urls)


def _host(url: str) -> str:
    """ "" for an empty text; of a text that is no URL the text itself, so that its reader reports it."""
    try:
        return urlsplit(url.strip()).hostname or url.strip()
    except ValueError:
        return url


def map_for(found: Sequence[tuple[KnownProvider, str]], environment: Environment) -> dict[str, Any]:
    """A routing map: the first provider's model is hot; the cheaper models are warm, those of other providers first."""
    (first, variable), *others = found
    warm = [provider.route(provider.cheaper, name, environment) for provider, name in others]
    return {
        "hot": [first.route(first.model, variable, environment)],
        "warm": [*warm, first.route(first.cheaper, variable, environment)],
        "cold": {"mode": "graceful_degrade", "queue": "ai-tasks"},
    }
