"""Settings in words: the routes that workers use beside those of the file, who is on call, who may sign in. And the drills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from ops.drills.record import recorded
from ops.reports import explain
from ops.web.pages.page import Pages
from producer.errors import ConfigurationError
from worker.breakers import health
from worker.configuration import Configuration
from worker.control import tokens, worker_registry
from worker.control.pause import paused
from worker.notify.incidents import Incidents
from worker.notify.oncall import load_on_call
from worker.objectives.policy import load_slo_policy
from worker.queue.dead_letters import now_ms

TOKENS_LISTED = 200


@dataclass(frozen=True)
class FileRoutes:
    """The routes of the web process's own routes.json, in words; `problem`: why it cannot be read. `differs`: how the maps
    that workers use differ from it."""

    lines: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    problem: str = ""


def add(router: APIRouter, pages: Pages) -> None:
    @router.get("/ui/settings")
    def settings(request: Request) -> Response:
        client = pages.client
        views = worker_registry.views(client)
        used = _used(views)
        on_call, why_not = None, ""
        try:
            on_call = load_on_call(pages.environment)
        except ConfigurationError as error:
            why_not = str(error)
        active = on_call.now(now_ms(client)) if on_call else ""
        both = [*tokens.load_tokens(pages.environment), *tokens.listed(client)]
        return pages.render(
            request, "settings.html", routes=used, file=_file_routes(pages, views), on_call=on_call, active=active,
            why_not=why_not, mute=Incidents(client).troubles(), tokens=both[:TOKENS_LISTED],
            standing=health.of_routes(client, [route["route"] for route in used]),
            disabled={flag.route: str(flag) for flag in paused(client, []) if flag.route},
            odd=list(dict.fromkeys(text for view in views for text in view.get("told", ()))),
        )  # fmt: skip

    @router.get("/ui/drills")
    def drills(request: Request) -> Response:
        policy = load_slo_policy(pages.environment)
        return pages.render(request, "drills.html", drills=policy.client.drills, held=recorded(pages.client))


def _used(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each route of the workers' maps, once."""
    found: dict[str, dict[str, Any]] = {}
    for view in views:
        for route in view["routes"]:
            found.setdefault(route["route"], route)
    return list(found.values())


def _file_routes(pages: Pages, views: list[dict[str, Any]]) -> FileRoutes:
    try:
        configuration = Configuration.load(pages.environment, tenants_keys=False)
    except ConfigurationError as error:
        return FileRoutes(problem=str(error))
    rows = explain.rows(configuration, explain.standing(pages.client, configuration))
    in_file = {row.route: row.tier for row in rows}
    differs = []
    if views:
        in_use = {route["route"]: route["tier"] for route in _used(views)}
        differs += [f"{name} is in the file, and no worker uses it" for name in in_file if name not in in_use]
        differs += [f"{name} is used by a worker, and is not in the file" for name in in_use if name not in in_file]
        moved = [name for name in in_file if name in in_use and in_file[name] != in_use[name]]
        differs += [f"{name} is {in_file[name]} in the file, and {in_use[name]} for the workers" for name in moved]
    return FileRoutes(tuple(explain.lines(rows)), tuple(differs))
