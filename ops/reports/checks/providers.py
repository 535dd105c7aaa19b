"""What the doctor finds when it asks each route, as the worker would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ops.local import session
from ops.reports.checks.finding import Finding, wrong
from producer.environment import Environment
from producer.errors import ConfigurationError
from worker.humanize import many
from worker.network import Network
from worker.routes.route import Route, load_routes

if TYPE_CHECKING:
    from worker.providers.connectivity import Found


def check_providers(environment: Environment) -> Iterator[Finding]:
    """Each route's list of models, asked through the worker's own client. No billed call."""
    from worker.providers.connectivity import Reached, reach  # imports the HTTP client

    try:
        routes = load_routes(environment).routes
    except ConfigurationError:
        return  # reported above
    session.note(f"asking {many(len(routes), 'route')} for their models")
    try:
        network = Network.of(environment)
    except ConfigurationError as error:
        yield from wrong("network", error)
        return
    yield Finding("ok", "network", network.in_words(routes[0].base_url))
    answers = reach(routes, network)
    served = any(found.how is Reached.OK for found in answers)
    for route, found in zip(routes, answers, strict=True):
        yield _route(route, found, served=served)


def _route(route: Route, found: Found, *, served: bool) -> Finding:
    """`served`: another route answers."""
    from worker.providers.connectivity import Reached

    about = f"route {route.name}"
    match found.how:
        case Reached.OK:
            return Finding("ok", about, f"answers ({found.detail})")
        case Reached.KEY_REFUSED:
            return Finding("fail", about, f"refuses its key ({found.detail}) — replace the key", 2)
        case Reached.NO_MODELS:
            text = f"{found.address} is not there ({found.detail}) — the path in its baseUrl is probably wrong"
            return Finding("warn", about, f"{text}, unless this gateway has no list of models")
        case Reached.LOCAL:
            text = f"cannot be asked from here: {found.detail} — this is no fault of the provider"
        case _:
            text = f"is not reachable: {found.detail} — is {route.base_url} right, and is the provider up?"
    others = "; other routes serve the jobs" if served else ""
    return Finding("warn" if served else "fail", about, text + others, 0 if served else 3)
