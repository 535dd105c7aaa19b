"""`failover routes import`: converts a LiteLLM proxy's config.yaml to a routing map. Every setting without a counterpart is
listed. Source: LiteLLM's documentation of its config file, as of November 2026."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ops.importers.litellm_route import Deployment, Reading, number
from producer.errors import ConfigurationError, Problem, problems_of
from producer.policy import load_yaml
from worker.routes.schema import RouteMap

# Settings of router_settings and litellm_settings that are read.
_READ = {"allowed_fails", "cooldown_time", "timeout", "request_timeout", "stream_timeout", "num_retries", "fallbacks"}
_SAME_ANYWAY = {"enable_weighted_failover", "enable_pre_call_checks"}  # the router always does this
_INSTEAD = {
    "master_key": ": FAILOVER_API_TOKEN protects the web process",
    "database_url": ": jobs, results and costs are in Redis (REDIS_URL)",
    "routing_groups": ": policies/routing.yaml sets the order by job type",
    "context_window_fallbacks": ": set contextWindow on the routes",
    "drop_params": ": parameters that a provider does not know are always dropped, and listed in the trail",
}
_STRATEGIES = {
    "simple-shuffle": None,
    "latency-based-routing": "set `order: latency` in policies/routing.yaml",
    "cost-based-routing": "set `order: cost` in policies/routing.yaml",
}


@dataclass
class Imported:
    """The routing map as JSON data, its number of routes, and notes for a person."""

    routes: dict[str, Any]
    count: int
    notes: list[str]


def imported(path: Path, alias: str | None = None) -> Imported:
    """The map of one alias (`model_name`) and its fallbacks. Raises ConfigurationError."""
    config = _loaded(path)
    reading = Reading(_section(config, "litellm_settings") | _section(config, "router_settings"))
    groups: dict[str, list[Deployment]] = {}
    for position, entry in enumerate(config["model_list"], 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("litellm_params"), dict):
            problem = f"entry {position} has no litellm_params"
            raise ConfigurationError([Problem(str(path), "model_list", problem)])
        name = str(entry.get("model_name"))
        groups.setdefault(name, []).append(Deployment(f"model_list entry {position} ({name})", entry))
    fallbacks = _fallbacks(config, reading)
    chosen = _chosen(path, list(groups), fallbacks, reading, alias)
    tiers: dict[str, list[dict[str, Any]]] = {"hot": [], "warm": []}
    for group in chosen:
        _sort(reading, groups[group], tiers, backup=group != chosen[0])
    if not any(tiers.values()):
        raise ConfigurationError([Problem(str(path), "model_list", note) for note in reading.notes or ["is empty"]])
    found: dict[str, Any] = {tier: entries for tier, entries in tiers.items() if entries}
    found |= _breaker(reading)
    reading.notes += _leftovers(config, [name for name in groups if name not in chosen])
    try:
        RouteMap.model_validate(found)
    except ValidationError as error:
        raise ConfigurationError(problems_of(f"{path} as a map", error)) from None
    return Imported(found, sum(map(len, tiers.values())), reading.notes)


def _loaded(path: Path) -> dict[str, Any]:
    try:
        config, _ = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError([Problem(str(path), "", f"is not YAML: {' '.join(str(error).split())}")]) from None
    if not isinstance(config, dict) or not isinstance(config.get("model_list"), list) or not config["model_list"]:
        raise ConfigurationError([Problem(str(path), "model_list", "is missing: is it a LiteLLM config?")])
    return config


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _fallbacks(config: dict[str, Any], reading: Reading) -> dict[str, list[str]]:
    """The fallbacks by alias, of both sections, in order."""
    found: dict[str, list[str]] = {}
    for section in ("router_settings", "litellm_settings"):
        entries = _section(config, section).get("fallbacks") or ()
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, dict):
                reading.notes.append(f"{section}.fallbacks: {entry!r} is not a mapping of an alias to others")
                continue
            for alias, others in entry.items():
                names = others if isinstance(others, list) else [others]
                kept = found.setdefault(str(alias), [])
                kept += [name for name in map(str, names) if name not in kept and name != str(alias)]
    return found


def _chosen(
    path: Path, names: list[str], fallbacks: dict[str, list[str]], reading: Reading, alias: str | None
) -> list[str]:
    """The alias and its fallbacks, in order."""
    if alias is None and len(names) > 1:
        followed = {name for others in fallbacks.values() for name in others}
        heads = [name for name in names if name not in followed]
        if len(heads) != 1 or heads[0] not in fallbacks:
            problem = f"has several aliases: {', '.join(names)}"
            raise ConfigurationError([Problem(str(path), "model_list", problem, "choose one with --model")])
        alias = heads[0]
    alias = alias or names[0]
    if alias not in names:
        problem = f"no model_name is {alias!r}; the file has {', '.join(names)}"
        raise ConfigurationError([Problem(str(path), "model_list", problem)])
    others = fallbacks.get(alias, [])
    reading.notes += [f"fallbacks: {name} is not a model_name of the file" for name in others if name not in names]
    return [alias, *(name for name in others if name in names)]


def _sort(reading: Reading, group: list[Deployment], tiers: dict[str, list[dict[str, Any]]], *, backup: bool) -> None:
    """Put each deployment into a tier: the lowest order is hot, others and fallbacks are warm; without any order all
    are hot."""
    given = [deployment.order for deployment in group if deployment.order is not None]
    lowest = min(given, default=None)
    last = float("inf")
    for deployment in sorted(group, key=lambda each: last if each.order is None else each.order):
        route = deployment.route(reading)
        if route is not None:
            tiers["hot" if deployment.order == lowest and not backup else "warm"].append(route)


def _breaker(reading: Reading) -> dict[str, Any]:
    """The breaker section. LiteLLM's `allowed_fails: 3` acts at the fourth failure, so our `failures` is one more."""
    section: dict[str, Any] = {}
    if (fails := number(reading.settings.get("allowed_fails"))) is not None:
        section["failures"] = int(fails) + 1
    if (cooldown := number(reading.settings.get("cooldown_time"))) is not None:
        section["cooldownSeconds"] = cooldown
    return {"breaker": section} if section else {}


def _leftovers(config: dict[str, Any], aliases: list[str]) -> Iterator[str]:
    """A note for each setting of the file that was not imported."""
    for alias in aliases:
        yield f"model_name {alias}: not imported; a map has the routes of one alias (choose it with --model)"
    for section, settings in config.items():
        if section == "model_list":
            continue
        if not isinstance(settings, dict):
            yield f"{section} has no counterpart"
            continue
        known = _READ | _SAME_ANYWAY if section in ("router_settings", "litellm_settings") else set()
        for name, value in settings.items():
            if section == "router_settings" and name == "routing_strategy":
                if (instead := _STRATEGIES.get(str(value), "has no counterpart")) is not None:
                    yield f"router_settings.routing_strategy {value}: {instead}"
            elif name in known and name not in ("fallbacks", *_SAME_ANYWAY) and number(value) is None:
                yield f"{section}.{name}: {value!r} is not a number; it is left out"
            elif name not in known:
                yield f"{section}.{name} has no counterpart{_INSTEAD.get(name, '')}"
