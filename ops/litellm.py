"""`failover routes import`: a LiteLLM proxy's config.yaml as a routing map. What has no counterpart is listed, never dropped
in silence. Source: LiteLLM's documentation of its config file, as of November 2026."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from producer.errors import ConfigurationError, Problem

# LiteLLM's prefix -> our provider, its own endpoint, our dialect.
_PROVIDERS = {
    "openai": ("openai", "https://api.openai.com/v1", "openai"),
    "anthropic": ("anthropic", "https://api.anthropic.com/v1", "anthropic"),
    "gemini": ("google", "https://generativelanguage.googleapis.com/v1beta/openai", "openai"),
    "mistral": ("mistral", "https://api.mistral.ai/v1", "openai"),
    "groq": ("groq", "https://api.groq.com/openai/v1", "openai"),
    "deepseek": ("deepseek", "https://api.deepseek.com/v1", "openai"),
    "openrouter": ("openrouter", "https://openrouter.ai/api/v1", "openai"),
    "xai": ("xai", "https://api.x.ai/v1", "openai"),
    "together_ai": ("together", "https://api.together.xyz/v1", "openai"),
    "fireworks_ai": ("fireworks", "https://api.fireworks.ai/inference/v1", "openai"),
    "hosted_vllm": ("vllm", None, "openai"),
    "litellm_proxy": ("litellm", None, "openai"),
}
_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_DIRECT = {
    "timeout": "timeoutSeconds",
    "stream_timeout": "streamTimeoutSeconds",
    "rpm": "rpm",
    "tpm": "tpm",
    "weight": "weight",
}
_READ = {
    *_DIRECT,
    "model",
    "api_key",
    "api_base",
    "base_url",
    "order",
    "max_retries",
    "num_retries",
    "input_cost_per_token",
}
_READ |= {"output_cost_per_token", "max_parallel_requests"}
_ROUTER = {
    "allowed_fails",
    "cooldown_time",
    "timeout",
    "stream_timeout",
    "num_retries",
    "fallbacks",
    "routing_strategy",
}
_SAME_ANYWAY = {"enable_weighted_failover", "enable_pre_call_checks"}  # what the router does without being told


@dataclass
class Imported:
    """The map as JSON data, and a line for everything that a person should know."""

    routes: dict[str, Any]
    count: int
    notes: list[str]


@dataclass
class _Reading:
    where: str
    router: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def imported(path: Path, alias: str | None = None) -> Imported:
    """The map of one alias (`model_name`) and of those that it falls back to. Raises ConfigurationError."""
    config = _loaded(path)
    router = {**(config.get("litellm_settings") or {}), **(config.get("router_settings") or {})}
    reading = _Reading(str(path), router)
    groups: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, entry in enumerate(config["model_list"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("litellm_params"), dict):
            raise ConfigurationError([Problem(str(path), f"model_list.{number}", "has no litellm_params")])
        groups.setdefault(str(entry.get("model_name")), []).append((number, entry))
    chosen = _chosen(reading, list(groups), alias)
    tiers: dict[str, list[dict[str, Any]]] = {"hot": [], "warm": []}
    for group in chosen:
        _sort(reading, groups[group], tiers, backup=group != chosen[0])
    if not any(tiers.values()):
        raise ConfigurationError([Problem(str(path), "model_list", "; ".join(reading.notes) or "is empty")])
    found: dict[str, Any] = {tier: entries for tier, entries in tiers.items() if entries}
    found |= _breaker(router)
    reading.notes += _leftovers(config, set(groups) - set(chosen))
    return Imported(found, sum(map(len, tiers.values())), reading.notes)


def _loaded(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError([Problem(str(path), "", f"is not YAML: {' '.join(str(error).split())}")]) from None
    if not isinstance(config, dict) or not isinstance(config.get("model_list"), list) or not config["model_list"]:
        raise ConfigurationError([Problem(str(path), "model_list", "is missing: is it a LiteLLM config?")])
    return config


def _chosen(reading: _Reading, names: list[str], alias: str | None) -> list[str]:
    """The alias and its fallbacks, in order."""
    if alias is None and len(names) > 1:
        followed = {
            name for entry in reading.router.get("fallbacks") or () for found in entry.values() for name in found
        }
        heads = [name for name in names if name not in followed]
        if len(heads) != 1:
            told = f"has several aliases: {', '.join(names)}"
            raise ConfigurationError([Problem(reading.where, "model_list", told, "choose one with --model")])
        alias = heads[0]
    alias = alias or names[0]
    if alias not in names:
        told = f"no model_name is {alias!r}; there are {', '.join(names)}"
        raise ConfigurationError([Problem(reading.where, "model_list", told)])
    fallbacks: list[str] = next((entry[alias] for entry in reading.router.get("fallbacks") or () if alias in entry), [])
    for missing in (name for name in fallbacks if name not in names):
        reading.notes.append(f"router_settings.fallbacks: {missing} is no model_name of the file")
    return [alias, *(name for name in fallbacks if name in names)]


def _sort(
    reading: _Reading,
    entries: list[tuple[int, dict[str, Any]]],
    tiers: dict[str, list[dict[str, Any]]],
    *,
    backup: bool,
) -> None:
    """The lowest order is hot, the others are warm; without an order all of a group is hot, of a fallback warm."""
    ordered = sorted(entries, key=lambda each: _number(each[1]["litellm_params"].get("order")) or 0)
    lowest = _number(ordered[0][1]["litellm_params"].get("order")) or 0
    for number, entry in ordered:
        route = _route(reading, f"model_list.{number}", entry)
        if route is not None:
            first = (_number(entry["litellm_params"].get("order")) or 0) == lowest and not backup
            tiers["hot" if first else "warm"].append(route)


def _route(reading: _Reading, where: str, entry: dict[str, Any]) -> dict[str, Any] | None:
    params = entry["litellm_params"]
    base = params.get("api_base") or params.get("base_url")
    target = _target(reading, where, params, base)
    if target is None:
        return None
    provider, model, own_base, api = target
    route: dict[str, Any] = {"provider": provider, "model": model, "baseUrl": _interpolated(base) or own_base}
    if api != "openai":
        route["api"] = api
    route |= _key(reading, where, params.get("api_key"))
    defaults = {name: reading.router.get(name) for name in ("timeout", "stream_timeout")}
    for name, ours in _DIRECT.items():
        value = _number(params.get(name, defaults.get(name)))
        if value is not None:
            route[ours] = value
    retries = _number(params.get("max_retries", params.get("num_retries", reading.router.get("num_retries"))))
    if retries is not None:
        route["retries"] = min(int(retries), 5)
    if (most := _number(params.get("max_parallel_requests"))) is not None:
        route["maxConcurrency"] = most
    route |= _lore({**(entry.get("model_info") or {}), **params})
    if kept := [ours for ours in ("rpm", "tpm", "maxConcurrency") if ours in route]:
        reading.notes.append(f"{where}: {', '.join(kept)} kept in the map; nothing holds to it yet")
    info = set(entry.get("model_info") or {}) - _INFO
    for name in sorted({str(name) for name in params} - _READ) + [f"model_info.{name}" for name in sorted(info)]:
        reading.notes.append(f"{where}: {name} has no counterpart")
    return route


def _target(
    reading: _Reading, where: str, params: dict[str, Any], base: Any
) -> tuple[str, str, str | None, str] | None:
    """(provider, model, the provider's own endpoint, dialect); None with a note where there is no counterpart."""
    model = params.get("model")
    if isinstance(model, list) and len(model) == 1:  # [PROVIDER_A_MODEL_ID]: a placeholder, which YAML reads as a list
        variable = re.sub(r"\W", "_", str(model[0]))
        found = _VARIABLE.fullmatch(str(params.get("api_key")))
        provider = re.sub(r"_(API_)?KEY$", "", found[1]).lower() if found else "provider"
        reading.notes.append(
            f"{where}: set {variable} to the model's id, as {_interpolated(base) or 'its api_base'} knows it"
        )
        if base is None:
            reading.notes.append(
                f"{where}: without an api_base nobody knows where {variable} is served; it is left out"
            )
            return None
        return provider, f"${{{variable}}}", None, "openai"
    if not isinstance(model, str) or not model:
        reading.notes.append(f"{where}: has no model; it is left out")
        return None
    prefix, slash, name = model.partition("/")
    if not slash:
        prefix, name = "openai", model
    if prefix not in _PROVIDERS:
        reading.notes.append(
            f"{where}: {prefix} has no counterpart; serve it by an OpenAI-compatible gateway. It is left out"
        )
        return None
    provider, own_base, api = _PROVIDERS[prefix]
    if own_base is None and base is None:
        reading.notes.append(f"{where}: {prefix} wants an api_base; it is left out")
        return None
    return provider, _interpolated(name) or name, own_base, api


def _key(reading: _Reading, where: str, key: Any) -> dict[str, Any]:
    if key is None:
        return {}
    if found := _VARIABLE.fullmatch(str(key)):
        return {"apiKeyEnv": found[1]}
    reading.notes.append(
        f"{where}: api_key stands in the file itself: it is not copied; put it into the environment, and apiKeyEnv here"
    )
    return {}


_INFO = {"id", "mode", "max_input_tokens", "max_output_tokens", "input_cost_per_token", "output_cost_per_token"}
_INFO |= {"supports_function_calling", "supports_response_schema", "supports_vision", "max_tokens"}


def _lore(told: dict[str, Any]) -> dict[str, Any]:
    """What LiteLLM's model_info says of windows, prices and abilities."""
    lore: dict[str, Any] = {}
    if (window := _number(told.get("max_input_tokens"))) is not None:
        lore["contextWindow"] = int(window)
    if (longest := _number(told.get("max_output_tokens"))) is not None:
        lore["maxOutputTokens"] = int(longest)
    prices = [_number(told.get(f"{way}_cost_per_token")) for way in ("input", "output")]
    if prices[0] is not None and prices[1] is not None:
        lore["price"] = {"input": round(prices[0] * 1e6, 9), "output": round(prices[1] * 1e6, 9)}
    flags = {
        "supports_function_calling": ["tools"],
        "supports_response_schema": ["json_mode", "json_schema"],
        "supports_vision": ["vision"],
    }
    if all(name in told for name in flags):
        lore["capabilities"] = [able for name, names in flags.items() if told[name] for able in names]
    return lore


def _breaker(router: dict[str, Any]) -> dict[str, Any]:
    """`allowed_fails: 3` cools a deployment at the fourth failure; a breaker opens at its `failures`."""
    section: dict[str, Any] = {}
    if (fails := _number(router.get("allowed_fails"))) is not None:
        section["failures"] = int(fails) + 1
    if (cooldown := _number(router.get("cooldown_time"))) is not None:
        section["cooldownSeconds"] = cooldown
    return {"breaker": section} if section else {}


def _leftovers(config: dict[str, Any], aliases: set[str]) -> Iterator[str]:
    """Everything of the file that was not read."""
    for alias in sorted(aliases):
        yield f"model_name {alias}: not imported; a map is one list of routes (--model chooses)"
    for section, settings in config.items():
        if section == "model_list":
            continue
        if not isinstance(settings, dict):
            yield f"{section} has no counterpart"
            continue
        for name, value in settings.items():
            if name == "routing_strategy":
                yield from _strategy(str(value))
            elif name not in _ROUTER | _SAME_ANYWAY:
                yield f"{section}.{name} has no counterpart{_INSTEAD.get(name, '')}"


_INSTEAD = {
    "master_key": ": FAILOVER_API_TOKEN guards the web process",
    "database_url": ": jobs, results and costs stand in Redis (REDIS_URL)",
    "routing_groups": ": an order by job type stands in policies/routing.yaml",
    "context_window_fallbacks": ": give routes a contextWindow",
}


def _strategy(value: str) -> Iterator[str]:
    if value == "latency-based-routing":
        yield "router_settings.routing_strategy latency-based-routing: set `order: latency` in policies/routing.yaml"
    elif value == "cost-based-routing":
        yield "router_settings.routing_strategy cost-based-routing: set `order: cost` in policies/routing.yaml"
    elif value != "simple-shuffle":
        yield f"router_settings.routing_strategy {value} has no counterpart"


def _interpolated(value: Any) -> str | None:
    return _VARIABLE.sub(r"${\1}", str(value)) if value is not None else None


def _number(value: Any) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
