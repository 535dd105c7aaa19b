"""The conditions of providers: breakers that are open, and keys, credits or models that a provider refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from worker.breakers.health import Health
from worker.humanize import many
from worker.notify.condition import Condition, waiting_size
from worker.notify.kinds import Kind
from worker.routes.names import canonical

LONG_COOLDOWN_SECONDS = 60.0  # a shorter cooldown is a rate limit, which needs no person


class Refused(StrEnum):
    """What a provider refuses. The value names it in a title."""

    KEY = "our key"
    CREDIT = "our credit"
    MODEL = "our model"


# by the reason of a route's cooldown (worker/errors/catalog.py): what is refused, and what its route does
REFUSALS = {
    "unauthorized": (Refused.KEY, "refuses the key"),
    "forbidden": (Refused.KEY, "refuses access"),
    "billing": (Refused.CREDIT, "asks for payment"),
    "quota": (Refused.CREDIT, "reports that the quota is used up"),
    "no_such_model": (Refused.MODEL, "does not know the model"),
}
_EVERYWHERE = {
    Refused.KEY: "Every provider refuses our key",
    Refused.CREDIT: "Our credit is used up at every provider",
    Refused.MODEL: "No provider knows our model",
}
_AT_ONE = {
    Refused.KEY: "{provider} refuses our key",
    Refused.CREDIT: "Our credit at {provider} is used up",
    Refused.MODEL: "{provider} does not know our model",
}
_FIXES = {
    "unauthorized": "make a new key on {provider}'s page of API keys, and set {key} where the workers run",
    "forbidden": "on {provider}'s page of API keys, allow this key to use the model; or set {key} to another key",
    "billing": "add credit, or pay, on {provider}'s billing page",
    "quota": "raise the limit, or add credit, on {provider}'s billing page; or wait until it is reset",
    "no_such_model": "name a model that {provider} has in routes.json (`failover routes check` tries it)",
}


def of_routes(
    usable: Mapping[str, dict[str, Any]],
    standing: Mapping[str, Health],
    paused_routes: set[str],
    waiting: Callable[[], int],
) -> Iterator[Condition]:
    """Providers with an open breaker or a refused key, and whether no route is left. Paused routes do not count.

    `usable`: the workers' routes by name. `waiting` counts the jobs that wait.
    """
    unavailable = {name: route for name, route in standing.items() if name not in paused_routes and _unavailable(route)}
    for provider in sorted({canonical(usable[name]["provider"]) for name in unavailable}):
        theirs = [route for name, route in unavailable.items() if canonical(usable[name]["provider"]) == provider]
        if failing := [route for route in theirs if route.breaker == "open"]:
            yield _of_provider(Kind.ROUTE_OPEN, provider, failing)
        if refused := [route for route in theirs if route.rests_for in REFUSALS]:
            condition = _of_provider(Kind.CREDENTIALS, provider, refused)
            yield replace(
                condition, title=_refused_title(refused, usable), lines=(*condition.lines, *_fixes(refused, usable))
            )
    unpaused = [route for name, route in standing.items() if name not in paused_routes]
    if unpaused and len(unavailable) == len(unpaused):
        yield _of_all(unpaused, usable, waiting())


def _of_all(routes: Sequence[Health], usable: Mapping[str, dict[str, Any]], waiting: int) -> Condition:
    """No route can be used. If every provider refuses, only a person can end it; else the routes recover by themselves."""
    refused = [route for route in routes if route.rests_for in REFUSALS]
    all_refused = len(refused) == len(routes)
    condition = _of_provider(Kind.REFUSED if all_refused else Kind.COLD, "", routes)
    return replace(
        condition,
        title=_refused_title(refused, usable, everywhere=True) if all_refused else "",
        size=waiting_size(waiting),
        lines=(f"{many(waiting, 'job')} in the queue.", *condition.lines, *_fixes(refused, usable)),
    )


def _unavailable(route: Health) -> bool:
    """Whether the breaker is not closed, or the route has a cooldown that is long or needs a person."""
    long = bool(route.rests_for) and (route.reopens_in_seconds or 0) > LONG_COOLDOWN_SECONDS
    return route.breaker != "closed" or route.rests_for in REFUSALS or long


def _of_provider(kind: Kind, provider: str, routes: Sequence[Health]) -> Condition:
    problems = {
        route.route: REFUSALS[route.rests_for][1] if route.rests_for in REFUSALS else "fails" for route in routes
    }
    return Condition(
        kind,
        provider,
        lines=tuple(f"{name}: {what}" for name, what in problems.items()),
        marks={f"{name} {what}": f"{name} may be called again" for name, what in problems.items()},
        since_ms=min((route.rests_since_ms for route in routes if route.rests_since_ms), default=0),
        until_ms=min(route.probe_ms for route in routes) or None,
    )


def _refused_title(refused: Sequence[Health], usable: Mapping[str, dict[str, Any]], *, everywhere: bool = False) -> str:
    """What is refused, and by whom: `Every provider refuses our key: openai`."""
    by_what: dict[Refused, list[str]] = {}
    for route in refused:
        by_what.setdefault(REFUSALS[route.rests_for or ""][0], []).append(canonical(usable[route.route]["provider"]))
    parts = {what: ", ".join(dict.fromkeys(providers)) for what, providers in by_what.items()}
    if not everywhere:
        return "; ".join(_AT_ONE[what].format(provider=provider) for what, provider in parts.items())
    if len(parts) > 1:
        return "Every provider refuses us: " + ", ".join(f"{what} ({providers})" for what, providers in parts.items())
    return "".join(f"{_EVERYWHERE[what]}: {providers}" for what, providers in parts.items())


def _fixes(refused: Sequence[Health], usable: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """What to do at each provider, and how its jobs continue afterwards."""
    fixes: dict[str, list[str]] = {}
    for route in refused:
        facts = usable[route.route]
        fix = _FIXES[route.rests_for or ""].format(
            provider=canonical(facts["provider"]), key=facts.get("key") or "the variable of its key"
        )
        fixes.setdefault(f"{canonical(facts['provider'])}: {fix}", []).append(route.route)
    for fix, names in fixes.items():
        yield f"Fix {fix}. Then at once: failover routes enable {names[0]}"
