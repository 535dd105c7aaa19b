"""`failover routes diff`: the differences between two routing maps, in words for a reviewer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from worker.routes.parameters import of_host
from worker.routes.schema import RouteEntry, RouteMap, Tier, key_variable, named


@dataclass(frozen=True)
class Change:
    """One difference. `where`: a route's name, or a section of the map. `told`: one line for people."""

    kind: Literal["added", "removed", "moved", "changed", "order"]
    where: str
    field: str | None
    before: Any
    after: Any
    told: str


@dataclass(frozen=True)
class _Named:
    tier: Tier
    entry: RouteEntry


def compare(before: RouteMap, after: RouteMap) -> list[Change]:
    """The differences, the most important first: first route, added and removed routes, order, fields, sections."""
    old, new = _by_name(before), _by_name(after)
    return [
        *_first(old, new),
        *_membership(old, new),
        *_order(old, new),
        *(change for name in new if name in old for change in _fields(name, old[name].entry, new[name].entry)),
        *_sections(before, after),
    ]


def _by_name(route_map: RouteMap) -> dict[str, _Named]:
    return {name: _Named(tier, entry) for name, tier, entry in named(route_map)}


def _first(old: dict[str, _Named], new: dict[str, _Named]) -> Iterator[Change]:
    """The first route of a job: the change with the largest effect."""
    was, now = _starts(old), _starts(new)
    if was != now:
        text = f"jobs start at {now or 'no route'}; before: {was or 'no route'}"
        yield Change("order", "the map", "first route", was, now, text)


def _starts(routes: dict[str, _Named]) -> str | None:
    """The first route for every job: enabled, and not a canary."""
    entries = ((name, route.entry) for name, route in routes.items())
    return next((name for name, entry in entries if entry.enabled and entry.canary is None), None)


def _membership(old: dict[str, _Named], new: dict[str, _Named]) -> Iterator[Change]:
    for name in (name for name in new if name not in old):
        route = new[name]
        what = f"+ {name} ({route.tier}): {_described(route.entry)}"
        yield Change("added", name, None, None, route.tier, what)
    for name in (name for name in old if name not in new):
        yield Change("removed", name, None, old[name].tier, None, f"- {name} ({old[name].tier}) is removed")
    for name in (name for name in new if name in old):
        if old[name].tier != new[name].tier:
            text = f"{name} moves from {old[name].tier} to {new[name].tier}"
            yield Change("moved", name, "tier", old[name].tier, new[name].tier, text)


def _described(entry: RouteEntry) -> str:
    dialect = f", {entry.api} dialect" if entry.api != "openai" else ""
    share = f", for {entry.canary:g}% of the jobs" if entry.canary is not None else ""
    key = _key(entry)
    off = ", disabled" if not entry.enabled else ""
    return f"{entry.provider} {entry.model} at {_address(entry.base_url)}{dialect}, {key}{share}{off}"


def _key(entry: RouteEntry) -> str:
    source = entry.api_key_file or ("" if entry.api_key_env == "" else key_variable(entry))
    return f"key of {source}" if source else "no key"


def _order(old: dict[str, _Named], new: dict[str, _Named]) -> Iterator[Change]:
    for tier in ("hot", "warm"):
        stay = {name for name in old.keys() & new.keys() if old[name].tier == new[name].tier == tier}
        was, now = ([name for name in routes if name in stay] for routes in (old, new))
        if was != now:
            text = f"{tier}: order {', '.join(now)}; before: {', '.join(was)}"
            yield Change("order", tier, "order", was, now, text)


def _fields(name: str, old: RouteEntry, new: RouteEntry) -> Iterator[Change]:
    if _key(old) != _key(new):
        yield Change("changed", name, "key", _key(old), _key(new), f"~ {name}: {_key(old)} -> {_key(new)}")
    passed = {"name", "api_key_env", "api_key_file"}
    was, now = (entry.model_dump(by_alias=True, mode="json", exclude=passed) for entry in (old, new))
    for field in now:
        if was[field] != now[field]:
            text = f"~ {name}: {field} {_shown(was[field])} -> {_shown(now[field])}{_means(field, was, now)}"
            yield Change("changed", name, field, was[field], now[field], text)


def _means(field: str, was: dict[str, Any], now: dict[str, Any]) -> str:
    """The effect of a change on jobs, if the field's name does not say it."""
    match field:
        case "enabled":
            return " (jobs use it again)" if now[field] else " (no job uses it)"
        case "streamTimeoutSeconds" if was[field] is None or now[field] is None:
            return " (answers are streamed now)" if now[field] is not None else " (answers are no longer streamed)"
        case "canary":
            share = f" ({now[field]:g}% of the jobs use it first, the others never)" if now[field] is not None else ""
            return share or " (every job may use it)"
        case "baseUrl" if of_host(was[field]) is not of_host(now[field]):
            return " (another host: it may accept other parameters)"
        case "capabilities" if now[field] is not None:
            lost = sorted(set(was[field] or ("tools", "json_mode", "json_schema", "vision")) - set(now[field]))
            return f" (jobs that need {', '.join(lost)} do not use it)" if lost else ""
    return ""


def _sections(before: RouteMap, after: RouteMap) -> Iterator[Change]:
    for section in ("cold", "breaker"):
        was, now = (getattr(each, section).model_dump(by_alias=True, mode="json") for each in (before, after))
        for field in now:
            if was[field] != now[field]:
                text = f"~ {section}.{field} {_shown(was[field])} -> {_shown(now[field])}"
                yield Change("changed", section, field, was[field], now[field], text)


def _address(url: str) -> str:
    """The URL without password and query, which may be secrets."""
    head, slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{head}{slashes}{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return _address(value)
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "unset" if value is None else str(value)
