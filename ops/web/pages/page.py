"""What every page is made with: templates, headers, errors that a person can read, and what the pages read from."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined
from markupsafe import Markup
from redis.exceptions import RedisError

from ops.web.access import ACTS
from ops.web.pages.static import Static
from ops.web.pages.words import BREAKERS, TIERS, by_button, cause, done
from ops.web.sessions import NotSignedIn, Visitor
from producer import Producer
from producer.environment import Environment
from producer.errors import FailoverError
from worker.control import worker_registry
from worker.control.tokens import Role
from worker.humanize import many, money, one_line, printable, took

SIGN_IN = "/ui/sign-in"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TITLES = {400: "That cannot be done", 403: "Not for your role", 404: "Not found", 409: "It has changed meanwhile"}


class Pages:
    """Renders templates, and holds what pages read from. `producer`: a blocking one, so handlers run in threads."""

    def __init__(self, producer: Producer, environment: Environment) -> None:
        self.producer, self.client, self.environment = producer, producer.client, environment
        self.static = Static()
        self._templates = Templates(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,  # a text of tenants and providers is text, never markup
            finalize=_text,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {
            "asset": self.static.url,
            "link": link,
            "breakers": BREAKERS,
            "tiers": TIERS,
            "needs": needs,
        }
        self._templates.filters |= {"many": many, "money": money, "took": took, "when": when, "cut": one_line}
        self._templates.filters |= {"by_button": by_button, "cause": cause, "done": done}

    def queues(self) -> list[str]:
        """Every queue that was used."""
        return worker_registry.queues(self.client, self.producer.queue)

    def fragment(self, template: str, **facts: Any) -> str:
        """A template as text: a part of a page."""
        return self._templates.get_template(template).render(facts)

    def render(self, request: Request, template: str, status: int = 200, **facts: Any) -> HTMLResponse:
        """A whole page; for htmx, which asks for the content of a dialog, its `body` block alone."""
        visitor: Visitor | None = getattr(request.state, "visitor", None)
        own = {"visitor": visitor, "path": request.url.path, "in_dialog": "hx-request" in request.headers}
        may = {act: visitor is not None and visitor.role in roles for act, roles in ACTS.items()}
        return HTMLResponse(self.fragment(template, **own, may=may, **facts), status)

    def failed(self, request: Request, status: int, why: str) -> Response:
        """An error as a page."""
        title = TITLES.get(status, "Try again in a moment" if status == 503 else "That did not work")
        return self.render(request, "failed.html", status, title=title, why=why)

    def route_class(self) -> type[APIRoute]:
        """The class of a page's route: errors become pages, and every answer has the headers."""
        pages = self

        class PageRoute(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handle = super().get_route_handler()

                async def handled(request: Request) -> Response:
                    try:
                        response = await handle(request)
                    except NotSignedIn:
                        response = _to_sign_in(request)
                    except FailoverError as error:
                        response = pages.failed(request, error.status, str(error))
                    except RedisError as error:
                        response = pages.failed(request, 503, f"Redis does not answer: {error}")
                    for name, value in HEADERS.items():
                        response.headers.setdefault(name, value)
                    return response

                return handled

        return PageRoute


def needs(href: str) -> str:
    """The least role that may do the act of this link: page Now is made once for all who look, and hides by it."""
    act = href.partition("?")[0].removeprefix("/ui/act/")
    return "reviewer" if Role.REVIEWER in ACTS.get(act, ()) else "operator"


def _to_sign_in(request: Request) -> Response:
    sent = request.method != "GET"  # a form, of a session that is over
    to = link(SIGN_IN, next="/" if sent else request.url.path, ended="1" if sent else "")
    if "hx-request" in request.headers:
        return Response(headers={"HX-Redirect": to})
    return RedirectResponse(to, 303)


def _text(value: Any) -> Any:
    """What an expression of a template prints: None is nothing, and no text changes the writing direction."""
    if value is None:
        return ""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def link(path: str, **query: str | int | float | None) -> str:
    """A link with its query; what is None or "" is left out."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def when(ms: float | None) -> Markup:
    """A moment (Unix time in milliseconds) in UTC. The script writes the reader's own time, and how long ago, beside it."""
    if not ms:
        return Markup("-")
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), at.strftime("%m-%d %H:%M UTC")
    )
