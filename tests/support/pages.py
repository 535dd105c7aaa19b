"""What a person does in a browser: signs in, looks, clicks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
import redis
from playwright.sync_api import Browser, Page, ViewportSize

from tests.support.browser import watched
from tests.support.web import TOKEN
from worker.control import tokens
from worker.control.tokens import Role, Token

PAGES = (
    "/",
    "/ui/incidents",
    "/ui/review",
    "/ui/dead-letters",
    "/ui/jobs",
    "/ui/money",
    "/ui/history",
    "/ui/drills",
    "/ui/settings",
)


@contextlib.contextmanager
def visitor(
    browser: Browser,
    web: httpx.Client,
    token: str = TOKEN,
    *,
    phone: bool = False,
    dark: bool = False,
    script: bool = True,
    complains: bool = False,
) -> Iterator[Page]:
    """A person who has signed in as Maria. Unless it `complains`, the page writes nothing into its console."""
    size: ViewportSize = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 800}
    context = browser.new_context(
        base_url=str(web.base_url), viewport=size, color_scheme="dark" if dark else "light", java_script_enabled=script
    )
    page = context.new_page()
    complaints = watched(page)
    page.goto("/")
    page.get_by_label("Your token").fill(token)
    page.get_by_label("Your name").fill("Maria")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_load_state("load")
    yield page
    context.close()
    assert complains or complaints == []


def signed_in(web: httpx.Client, token: str = TOKEN) -> httpx.Client:
    """A client of pages alone, with a session of its own."""
    person = httpx.Client(base_url=web.base_url, timeout=30, trust_env=False)
    answer = person.post("/ui/sign-in", data={"token": token, "name": "Maria", "next": "/"})
    assert answer.status_code == 303, answer.text
    return person


def csrf_of(person: httpx.Client, path: str = "/ui/act/pause") -> str:
    """The `csrf` of its forms."""
    return person.get(path).text.partition('name="csrf" value="')[2].partition('"')[0]


def token_of(client: redis.Redis, name: str, role: Role, tenant: str | None = None) -> str:
    """A new token's secret."""
    secret = tokens.new_secret()
    tokens.create(client, Token(name=name, role=role, tenant=tenant, sha256=tokens.hash_of(secret), by="test"))
    return secret
