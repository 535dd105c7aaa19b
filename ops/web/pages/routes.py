"""The pages together: every route of the room, and page Now with its live events."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from ops.web.draining import Draining
from ops.web.pages import clients, history, incidents, jobs, money, settings_page, sign_in
from ops.web.pages.acts.act import Act
from ops.web.pages.acts.dead_letter_acts import DEAD_LETTERS
from ops.web.pages.acts.pausing import PAUSING
from ops.web.pages.acts.work_acts import WORK
from ops.web.pages.live import Live
from ops.web.pages.now import SECTIONS, NowPage
from ops.web.pages.page import Pages
from ops.web.sessions import Form, Sessions
from ops.web.settings import Settings
from producer.errors import ServiceUnavailable
from worker.control.tokens import Role

ACTS: dict[str, Act] = {**PAUSING, **DEAD_LETTERS, **WORK}


def pages_router(pages: Pages, sessions: Sessions, settings: Settings, draining: Draining) -> APIRouter:
    """The routes that ops/web/access.py names in PAGES."""
    router = APIRouter(route_class=pages.route_class(), include_in_schema=False)
    sign_in.add(router, pages, sessions, settings)
    _now(router, pages, draining)
    for each in (jobs, incidents, money, history, settings_page, clients):
        each.add(router, pages)
    for name, act in ACTS.items():
        _act(router, pages, name, act)

    @router.get("/ui/static/{name}")
    async def static(request: Request, name: str) -> Response:
        return pages.static.answer(request, name)

    @router.get("/ui/{path:path}")
    async def nothing(request: Request, path: str) -> Response:
        return pages.failed(request, 404, f"There is no page {request.url.path}.")

    return router


def _now(router: APIRouter, pages: Pages, draining: Draining) -> None:
    look = NowPage(pages)
    live = Live(look.sections, draining)

    @router.get("/")
    async def now(request: Request) -> Response:
        if request.state.visitor.role is Role.TENANT:
            return RedirectResponse("/ui/mine", 303)
        sections = await live.sections()
        return await run_in_threadpool(pages.render, request, "now.html", sections=sections, names=SECTIONS)

    @router.get("/ui/live")
    async def events() -> Response:
        if live.full:
            raise ServiceUnavailable("too many people watch this page: reload it for what happens now")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(live.events(), media_type="text/event-stream", headers=headers)


def _act(router: APIRouter, pages: Pages, name: str, act: Act) -> None:
    path = f"/ui/act/{name}"

    @router.get(path)
    def ask(request: Request) -> Response:
        given = request.query_params
        query = Form({field: given.getlist(field) for field in given})
        return pages.render(request, "act.html", preview=act.preview(pages, query), action=path)

    @router.post(path)
    def do(request: Request) -> Response:
        done = act.do(pages, request.state.form, request.state.visitor)
        return pages.render(request, "done.html", done=done)
