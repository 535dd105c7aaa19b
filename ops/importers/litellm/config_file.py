"""Reads a LiteLLM config as people have it: with `include`, within Helm's values or a ConfigMap, or as the proxy's own list of
its models. Raises ConfigurationError, which says what the file is instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from ops.importers.litellm.report import Report
from ops.importers.litellm.values import NAME
from producer.errors import ConfigurationError, Problem

MOST_INCLUDES = 100
_TEMPLATE = re.compile(  # {{ NAME }}, {{ env "NAME" }}: of helmfile and others
    rf"\{{\{{-?\s{{0,9}}(?:(?:env|requiredEnv)\s{{1,9}})?[\"']?({NAME})[\"']?\s{{0,9}}-?\}}\}}"
)
MOST_VALUES = 200_000
_FROM_PROXY = (
    "ask the proxy for them: curl -H 'Authorization: Bearer KEY' PROXY/model/info > models.json, and import that"
)


def read(path: Path, report: Report) -> dict[str, Any]:
    """The config, with a model_list that is not empty; a section that is null is absent."""
    config = _included(path, report, {path.resolve()})
    listed = config.get("model_list")
    if isinstance(listed, list) and listed:
        return {name: section for name, section in config.items() if section is not None}
    in_database = isinstance(general := config.get("general_settings"), dict) and general.get("store_model_in_db")
    if in_database:
        _refuse(path, "is empty: its models are in LiteLLM's database (store_model_in_db)", _FROM_PROXY)
    if listed == [] or ("model_list" in config and listed is None):
        _refuse(path, "is empty, so it routes nothing", f"if its models are in LiteLLM's database, {_FROM_PROXY}")
    if "model_list" in config:
        _refuse(path, "is not a list", "write each model as `- model_name: ...`")
    if {"general_settings", "litellm_settings", "router_settings"} & config.keys():
        _refuse(
            path, "is missing: the file has only settings", f"if its models are in LiteLLM's database, {_FROM_PROXY}"
        )
    return _refuse(path, "is missing: is it a LiteLLM config?", "give the file with `model_list`")


def _refuse(path: Path, problem: str, fix: str) -> dict[str, Any]:
    raise ConfigurationError([Problem(str(path), "model_list", problem, fix)])


def _included(path: Path, report: Report, seen: set[Path]) -> dict[str, Any]:
    """The file and those that it includes: their lists are added to its own, other sections replace it, as in LiteLLM."""
    config = _config_of(path, report)
    names = config.pop("include", None)
    for name in [names] if isinstance(names, str) else names or ():
        other = path.parent / str(name)
        if other.resolve() in seen or len(seen) > MOST_INCLUDES:
            continue
        seen.add(other.resolve())
        report.took("include", f"{name} is read too")
        for section, value in _included(other, report, seen).items():
            both = isinstance(value, list) and isinstance(config.get(section), list)
            config[section] = [*config[section], *value] if both else value
    return config


def _config_of(path: Path, report: Report) -> dict[str, Any]:
    """The config in the file, however deep it is."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            [Problem(str(path), "", f"cannot be read: {getattr(error, 'strerror', '') or error}")]
        ) from None
    documents = _documents(_TEMPLATE.sub(r"os.environ/\1", text), str(path), report)
    for place, found in (each for document in documents for each in _places(document, "")):
        if place:
            report.took(place, "the config is read from there")
        return found
    return next((document for document in documents if isinstance(document, dict)), {})


def _documents(text: str, where: str, report: Report) -> list[Any]:
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            _bounded(node)
            for name, lines in _twice(node):
                told = f"is in the file twice (lines {lines}): LiteLLM reads the last one, and so does the import"
                report.approximate(name, told)
        return list(yaml.safe_load_all(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError([Problem(where, "", f"is not YAML: {' '.join(str(error).split())}")]) from None


def _bounded(node: yaml.Node | None) -> None:
    """Raises ValueError for a text that aliases make very large."""
    if sum(1 for _ in islice(_nodes(node), MOST_VALUES)) == MOST_VALUES:
        raise ValueError(f"it has {MOST_VALUES} values or more, or circular aliases")


def _nodes(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """All values, those of aliases as often as they are used: a small text can be very large."""
    if isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            yield from _nodes(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _nodes(value)
    if node is not None:
        yield node


def _twice(node: yaml.Node | None, depth: int = 2) -> Iterator[tuple[str, str]]:
    """(a key that a mapping has twice, the lines), at the top and one level below: YAML keeps the last one without a word."""
    if not isinstance(node, yaml.MappingNode) or depth == 0:
        return
    lines: dict[str, list[str]] = {}
    for key, value in node.value:
        lines.setdefault(str(key.value), []).append(str(key.start_mark.line + 1))
        yield from ((f"{key.value}.{name}", where) for name, where in _twice(value, depth - 1))
    yield from ((name, " and ".join(where)) for name, where in lines.items() if len(where) > 1)


def _places(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it is, the config) of each mapping with a model_list: the top, Helm's proxy_config, a file in a ConfigMap; or the
    answer of the proxy's /model/info."""
    if isinstance(value, str) and "model_list:" in value:
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            return
    if isinstance(value, list):
        if any(isinstance(each, dict) and "litellm_params" in each for each in value):
            yield place, {"model_list": value}
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return
    if "model_list" in value or (not place and "include" in value):
        yield place, value
    for name, inner in value.items():
        if isinstance(inner, dict | list | str):
            yield from _places(inner, f"{place}.{name}" if place else str(name))
