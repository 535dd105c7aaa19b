"""How many seconds one call may take: the time of an execution is shared with the routes that could still answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from worker.routes.route import Route
from worker.routes.schema import RouteEntry


def call_seconds(left: float, whole: float, entry: RouteEntry, others: Sequence[RouteEntry]) -> float:
    """For a call on the route of `entry`. `left`: seconds left of the execution; `whole`: its deadline when it began; `others`:
    later routes that could answer now.

    The call leaves half of the time to the others, or less where one of them needs less. Where `timeoutSeconds` says that no
    other route could finish in that half either, halving would cut both calls, and both would be billed: then this call gets
    its own time.
    """
    own = entry.timeout_seconds
    if not others:
        return min(own, left)
    shortest = min(other.timeout_seconds for other in others)
    if _said(entry) and all(map(_said, others)) and own <= whole and shortest > left / 2:
        return min(own, left)
    return min(own, max(left / 2, left - shortest))


def _said(entry: RouteEntry) -> bool:
    """Whether the map says how long a call may take; the default says nothing about a model."""
    return "timeout_seconds" in entry.model_fields_set


def cut_routes(routes: Sequence[Route], deadlines: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """(route, why) for each one whose `timeoutSeconds` no job type gives it. `deadlines`: seconds by job type."""
    for position, route in enumerate(routes):
        others = [other.entry for other in routes[position + 1 :]]
        given = {name: call_seconds(whole, whole, route.entry, others) for name, whole in deadlines.items()}
        longest = max(given, key=lambda name: given[name], default=None)
        own = route.entry.timeout_seconds
        if longest is None or not _said(route.entry) or given[longest] >= own:
            continue
        shared = " while another route is open" if deadlines[longest] > given[longest] else ""
        yield (
            route.name,
            f"its timeoutSeconds is {own:g}, but a call is cut after {given[longest]:g} s at most{shared} (job type {longest}, "
            f"deadline_seconds {deadlines[longest]:g}) — raise deadline_seconds in policies/jobs.yaml, or lower timeoutSeconds",
        )
