"""`failover routes import`: converts a LiteLLM proxy's config.yaml to a routing map and job types, and says what it could not
take over. Source: LiteLLM 1.110.2, and its documentation of November 2026."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ops.importers.litellm import config_file
from ops.importers.litellm.aliases import (
    ORDERS,
    SHUFFLE,
    Alias,
    add_windows,
    alias_of,
    heads,
    report_strategy,
)
from ops.importers.litellm.deployment import Deployment, File
from ops.importers.litellm.fallbacks import Fallbacks, fallbacks_of
from ops.importers.litellm.report import Report
from ops.importers.litellm.settings import breaker, common_settings, mapping, report_settings
from ops.importers.litellm.values import filled
from ops.importers.litellm.wildcards import entries_for
from producer.environment import Environment
from producer.errors import ConfigurationError, Problem, problems_of
from worker.routes.schema import RouteMap, named

_NO_JOB_TYPE = re.compile(r"[^\w.@:/+-]+")  # what a job type's name cannot have
LONGEST_JOB_TYPE = 128
Group = str | list[str]


@dataclass(frozen=True)
class JobType:
    """An alias as a job type. `pin`: its routes in order, a group of those that share the jobs as a list. `order`: of a group,
    as in policies/routing.yaml."""

    pin: list[Group]
    order: str = "listed"
    failover_on_refusal: bool = False

    @property
    def routing(self) -> dict[str, Any]:
        """Its entry in policies/routing.yaml."""
        return {"pin": self.pin} | ({"order": self.order} if self.order != "listed" else {})

    @property
    def policy(self) -> dict[str, Any]:
        """Its entry in policies/jobs.yaml."""
        return {"failover_on_refusal": True} if self.failover_on_refusal else {}


@dataclass(frozen=True)
class Imported:
    """The routing map as JSON data, the job types by name, and the report for a person."""

    routes: dict[str, Any]
    job_types: dict[str, JobType]
    report: Report

    @property
    def count(self) -> int:
        """The number of routes."""
        return sum(len(self.routes.get(tier, ())) for tier in ("hot", "warm"))


def imported(path: Path, alias: str | None = None, environment: Environment | None = None) -> Imported:
    """The map of all aliases; of one, that one and its fallbacks. `environment`: fills in numbers, and says which variables
    are there. Raises ConfigurationError."""
    environment, report = environment or {}, Report()
    config = config_file.read(path, report)
    settings = common_settings(config)
    strategy = str(settings.get("routing_strategy") or SHUFFLE)
    fallbacks = fallbacks_of(config, report)
    deployments = _deployments(path, config, environment, report)
    used = [*fallbacks.unknown(deployments), *_second_names(config).values(), *([alias] if alias else ())]
    _add_wildcards(deployments, used)
    for name in dict.fromkeys(fallbacks.unknown(deployments)):
        report.leave_out("fallbacks", f"{name} is not a model_name of the file: add it to model_list")
    chosen = _chosen(path, list(deployments), fallbacks, alias)
    found = [alias_of(name, deployments[name], strategy, report) for name in chosen]
    aliases = [each for each in found if each.groups]
    if not found[0].groups and (alias is not None or not aliases):
        told = report.sections()["left_out"]
        raise ConfigurationError([Problem(str(path), "model_list", f"has no route to import; {each}") for each in told])
    add_windows(aliases, fallbacks, report)
    tops = [alias] if alias is not None else heads([each.name for each in aliases], fallbacks)
    tiers, names = _map(path, aliases, tops, fallbacks)
    by_name = {each.name: each for each in aliases}
    wanted = [each for each in found if each.groups or _others_answer(each, by_name, fallbacks)]
    job_types = _job_types(wanted if alias is None else wanted[:1], by_name, fallbacks, names, strategy, report)
    _add_second_names(config, job_types, report, all_aliases=alias is None)
    _report_routes(aliases, names, report)
    _report_defaults(aliases, len(tops) > 1 and "default" not in job_types, report)
    report_strategy(strategy, report)
    routes = _checked(path, tiers | breaker(settings, environment, report))
    report_settings(config, environment, report)
    return Imported(routes, job_types, report)


def _others_answer(alias: Alias, by_name: Mapping[str, Alias], fallbacks: Fallbacks) -> bool:
    """Whether an alias without a route has fallbacks with one: its jobs take those."""
    return "*" not in alias.name and any(name in by_name for name in fallbacks.chain(alias.name)[1:])


def _report_defaults(aliases: list[Alias], mixed: bool, report: Report) -> None:
    """Say where what the config leaves open is decided otherwise than by LiteLLM. `mixed`: jobs without a type may take
    routes of several aliases."""
    if mixed:
        fix = "pin the type `default` in policies/routing.yaml"
        report.approximate("jobs without a type", f"may take the hot routes of every alias, in the file's order: {fix}")
    if any("timeoutSeconds" not in route for each in aliases for route in each.routes):
        fix = "set timeoutSeconds in the map"
        report.approximate("timeout", f"some calls have none, and end after 60 s (LiteLLM: 600 s): {fix}")


def _deployments(
    path: Path, config: Mapping[str, Any], environment: Environment, report: Report
) -> dict[str, list[Deployment]]:
    """By alias, in the order of the file."""
    settings = common_settings(config)
    section = mapping(config.get("environment_variables"))
    variables = {str(name): filled(value) for name, value in section.items() if value is not None}
    if settings.get("api_base"):  # litellm.api_base: of what speaks OpenAI's dialect and has none of its own
        variables["OPENAI_BASE_URL"] = filled(settings["api_base"])
    file = File(settings, _credentials(config), variables, environment)
    found: dict[str, list[Deployment]] = {}
    for position, entry in enumerate(config["model_list"], 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("litellm_params"), dict):
            problem = f"entry {position} has no litellm_params"
            raise ConfigurationError([Problem(str(path), "model_list", problem, "write the model's settings below it")])
        deployment = Deployment(position, entry, file, report)
        found.setdefault(deployment.alias, []).append(deployment)
    return found


def _add_wildcards(deployments: dict[str, list[Deployment]], names: Iterable[str]) -> None:
    """Add those that an entry with a `*` stands for, of the names that no entry has."""
    listed = [each for entries in deployments.values() for each in entries]
    listed.sort(key=lambda each: each.position)
    for name in dict.fromkeys(names):
        if name not in deployments:
            for position, entry in entries_for(name, [each.entry for each in listed]):
                deployments.setdefault(name, []).append(replace(listed[position - 1], entry=entry))


def _credentials(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each credential of credential_list adds to litellm_params, by name."""
    listed, found = config.get("credential_list"), dict[str, dict[str, Any]]()
    for each in filter(mapping, listed if isinstance(listed, list) else ()):
        provider = mapping(each.get("credential_info")).get("custom_llm_provider")
        custom = {"custom_llm_provider": provider} if provider else {}
        found[str(each.get("credential_name"))] = {**custom, **mapping(each.get("credential_values"))}
    return found


def _chosen(path: Path, names: list[str], fallbacks: Fallbacks, alias: str | None) -> list[str]:
    """All aliases; or the one and those that take over from it, in order."""
    if alias is None:
        return names
    if alias not in names:
        problem = f"no model_name is {alias!r}; the file has {', '.join(names)}"
        raise ConfigurationError([Problem(str(path), "model_list", problem)])
    return [name for name in fallbacks.chain(alias) if name in names]


def _map(
    path: Path, aliases: list[Alias], tops: list[str], fallbacks: Fallbacks
) -> tuple[dict[str, Any], dict[int, str]]:
    """(the tiers, the name of each route by its id()). Hot: the first group of each top alias; warm: all others, in the order
    in which they take over."""
    by_name = {alias.name: alias for alias in aliases}
    ordered = dict.fromkeys(name for top in tops for name in fallbacks.chain(top) if name in by_name)
    hot = [route for name in ordered if name in tops for route in by_name[name].groups[0]]
    warm = [route for name in ordered for route in by_name[name].routes if not any(route is each for each in hot)]
    tiers = {tier: entries for tier, entries in (("hot", hot), ("warm", warm)) if entries}
    route_map = RouteMap.model_validate(_checked(path, tiers))
    names = [name for name, _, _ in named(route_map)]
    return tiers, {id(route): name for route, name in zip((*hot, *warm), names, strict=True)}


def _checked(path: Path, routes: dict[str, Any]) -> dict[str, Any]:
    try:
        RouteMap.model_validate(routes)
    except ValidationError as error:
        raise ConfigurationError(problems_of(f"{path} as a map", error)) from None
    return routes


def _job_types(
    wanted: list[Alias],
    by_name: Mapping[str, Alias],
    fallbacks: Fallbacks,
    names: Mapping[int, str],
    strategy: str,
    report: Report,
) -> dict[str, JobType]:
    """Each wanted alias, pinned to its routes and then to those that take over."""
    found: dict[str, JobType] = {}
    for alias in wanted:
        name = _NO_JOB_TYPE.sub("-", alias.name)[:LONGEST_JOB_TYPE]
        if "*" in alias.name:
            report.approximate(
                alias.name, "stands for many names, and is no job type: jobs of other types take the hot routes"
            )
            continue
        if name != alias.name:
            report.approximate(
                alias.name, f"is the job type {name}: a job type has only letters, digits and . @ : / + - _"
            )
        groups = [group for each in fallbacks.chain(alias.name) if each in by_name for group in by_name[each].groups]
        pin = [[names[id(route)] for route in group] for group in groups]
        found[name] = JobType(
            pin=[group[0] if len(group) == 1 else group for group in pin],
            order=ORDERS.get(strategy, "listed"),
            failover_on_refusal=fallbacks.refused(alias.name),
        )
        if fallbacks.of_some_failures(alias.name):
            report.approximate(
                alias.name, "its fallbacks are for one kind of failure; here they take over after every one"
            )
        report.took(f"job type {name}", ", then ".join(" or ".join(group) for group in pin))
    return found


def _second_names(config: Mapping[str, Any]) -> dict[str, str]:
    """model_group_alias: the alias that each further name stands for."""
    listed = mapping(mapping(config.get("router_settings")).get("model_group_alias"))
    return {str(name): str(each.get("model") if isinstance(each, dict) else each) for name, each in listed.items()}


def _add_second_names(
    config: Mapping[str, Any], job_types: dict[str, JobType], report: Report, *, all_aliases: bool
) -> None:
    """Another name of an alias is a job type with the same routes."""
    for name, target in _second_names(config).items():
        if target in job_types and _NO_JOB_TYPE.search(name) is None:
            job_types.setdefault(name, job_types[target])
            report.took(f"job type {name}", f"as {target}")
        elif all_aliases:
            report.leave_out(f"model_group_alias {name}", f"{target} is no alias with a route: add it to model_list")


def _report_routes(aliases: list[Alias], names: Mapping[int, str], report: Report) -> None:
    own = {"timeoutSeconds": "{:g} s", "streamTimeoutSeconds": "first token within {:g} s", "retries": "retries {}"}
    limits = {"rpm": "rpm {}", "tpm": "tpm {}", "maxConcurrency": "{} calls at once"}
    for alias in aliases:
        for route in alias.routes:
            held = [text.format(route[name]) for name, text in limits.items() if name in route]
            told = [f"{names[id(route)]} at {route['baseUrl']}"]
            told.append(f"key {route['apiKeyEnv']}" if route["apiKeyEnv"] else "no key")
            told += [text.format(route[name]) for name, text in own.items() if name in route]
            told += [f"weight {route['weight']}"] if "weight" in route else []
            told += [f"{' and '.join(held)} held by all workers together"] if held else []
            report.took(alias.name, ", ".join(told))
