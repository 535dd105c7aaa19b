"""Sign in with a token, and out."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from ops.web.pages.page import SIGN_IN, Pages
from ops.web.sessions import COOKIE, SESSION_SECONDS, Form, Sessions, same_origin
from ops.web.settings import Settings
from producer.errors import Forbidden, Unauthorized

ENDED = "Nothing was done: your session was over. Go back to copy what you wrote; then sign in and send it again."


def add(router: APIRouter, pages: Pages, sessions: Sessions, settings: Settings) -> None:
    """Without any secret configured, only this machine is served: whoever reads is signed in at once, as an operator."""

    @router.get(SIGN_IN)
    async def form(request: Request, next: str = "/", ended: str = "") -> Response:
        if not settings.any_secret:
            return await _begun(request, "", "", next)
        return pages.render(request, "sign_in.html", next=_own(next), failed=ENDED if ended else "")

    @router.post(SIGN_IN)
    async def sign_in(request: Request) -> Response:
        if not same_origin(request):
            raise Forbidden("sign in on the page itself")
        given: Form = request.state.form
        try:
            return await _begun(request, given.one("token"), given.one("name"), given.one("next"))
        except Unauthorized as error:
            return pages.render(request, "sign_in.html", 401, next=_own(given.one("next")), failed=str(error))

    @router.post("/ui/sign-out")
    async def sign_out() -> Response:
        response = RedirectResponse(SIGN_IN, 303)
        response.delete_cookie(COOKIE, path="/")
        return response

    async def _begun(request: Request, token: str, name: str, to: str) -> Response:
        cookie = await sessions.begin(request, token, name)
        response = RedirectResponse(_own(to), 303)
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", "").split(",")[0].strip())
        response.set_cookie(COOKIE, cookie, SESSION_SECONDS, path="/", secure=secure, httponly=True, samesite="lax")
        return response


def _own(path: str) -> str:
    """The path if it is one of our pages, else the first page: a link never leads to another site."""
    return path if path == "/" or path.startswith("/ui/") else "/"
