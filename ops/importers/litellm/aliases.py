"""The aliases (`model_name`) of a LiteLLM config with their routes, in the groups in which LiteLLM tries them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ops.importers.litellm.deployment import Deployment
from ops.importers.litellm.fallbacks import Fallbacks
from ops.importers.litellm.report import Report
from worker.routes.prices import public_context_window

Route = dict[str, Any]
ORDERS = {"latency-based-routing": "latency", "cost-based-routing": "cost"}
_EVENLY = {"least-busy", "usage-based-routing", "usage-based-routing-v2"}
SHUFFLE = "simple-shuffle"


@dataclass
class Alias:
    """`groups`: its routes, those of the lowest `order` first; within a group they share the jobs."""

    name: str
    groups: list[list[Route]] = field(default_factory=list)

    @property
    def routes(self) -> list[Route]:
        return [route for group in self.groups for route in group]


def alias_of(name: str, deployments: Sequence[Deployment], strategy: str, report: Report) -> Alias:
    """The alias with the routes of its deployments. Those without an `order` come last, if others have one."""
    last = float("inf")
    by_order: dict[tuple[int, float], list[tuple[str, Route]]] = {}
    for deployment in [*deployments, *(own for each in deployments for own in each.fallbacks)]:
        if (route := deployment.route()) is not None:
            order = last if deployment.order is None else deployment.order
            by_order.setdefault((deployment.fallback, order), []).append((deployment.where, route))
    for group in by_order.values():
        _weigh(group, strategy, report)
    return Alias(name, [[route for _, route in by_order[order]] for order in sorted(by_order)])


def _weigh(group: list[tuple[str, Route]], strategy: str, report: Report) -> None:
    """Give each route of a group the weight by which LiteLLM draws it: its own, else by rpm, else by tpm, where the first one
    has that; else all the same."""
    if len(group) < 2 or strategy in ORDERS:
        return
    routes = [route for _, route in group]
    first = next((name for name in ("weight", "rpm", "tpm") if name in routes[0]), None)
    by = first if first == "weight" or strategy == SHUFFLE else None
    for where, route in group:
        if by == "weight" and by not in route:
            report.approximate(where, "has no weight beside others with one: it gets 0, and comes last")
        elif by != "weight" and "weight" in route:
            report.approximate(where, "its weight is left out, as LiteLLM does: the first of its alias has none")
    for route in routes:
        route["weight"] = route.get(by, 0) if by else 1


def report_strategy(strategy: str, report: Report) -> None:
    """Say what becomes of `routing_strategy`."""
    where = "router_settings.routing_strategy"
    if strategy in ORDERS:
        report.took(where, f"{strategy} is `order: {ORDERS[strategy]}` of the job types in policies/routing.yaml")
    elif strategy in _EVENLY:
        report.approximate(where, f"{strategy} becomes an even share for each route of an alias; rpm and tpm hold")
    elif strategy != SHUFFLE:
        fix = "set `order` in policies/routing.yaml, or weights on the routes"
        report.leave_out(where, f"{strategy} has no counterpart: routes of an alias share jobs evenly; {fix}")


def heads(names: Sequence[str], fallbacks: Fallbacks) -> list[str]:
    """The aliases whose routes are hot: those that take over from no other. Of a circle, the first one."""
    followers = {follower for name in names for follower in fallbacks.chain(name)[1:]}
    found = [name for name in names if name not in followers]
    reached = {name for head in found for name in fallbacks.chain(head)}
    for name in names:
        if name not in reached:
            found.append(name)
            reached.update(fallbacks.chain(name))
    return sorted(found, key=names.index)


def add_windows(aliases: Iterable[Alias], fallbacks: Fallbacks, report: Report) -> None:
    """Where an alias has another one for what is too long, the windows decide: those of the price list, if the config has
    none."""
    by_name = {alias.name: alias for alias in aliases}
    for name in filter(fallbacks.outgrown, by_name):
        for each in fallbacks.chain(name):
            for route in by_name[each].routes if each in by_name else ():
                if "contextWindow" not in route:
                    window = public_context_window(route["provider"], route["model"])
                    if window is not None:
                        route["contextWindow"] = window
                    else:
                        told = f"the context window of {route['model']} is not known: set contextWindow on its route"
                        report.approximate(f"context_window_fallbacks ({each})", told)
