"""Who may see and do what on the pages: sessions, roles, forms of other sites; nothing of it needs a browser."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import aiohttp
import httpx
import pytest
import redis
from fastapi.routing import APIRoute

from ops.web.access import ACCESS, ACTS, PAGES
from ops.web.pages.page import HEADERS
from producer import Producer, keyspace
from tests.support.jobs import chat
from tests.support.pages import csrf_of, signed_in, token_of
from tests.support.polling import until
from tests.support.replies import fields
from tests.support.site import app
from tests.support.transitions import Q
from tests.support.web import TOKEN, served
from tests.support.workshop import Workshop
from worker.control import pause, tokens
from worker.control.tokens import Role
from worker.reports import statement


def audit(client: redis.Redis) -> list[dict[str, str]]:
    return [fields(entry) for _, entry in client.xrange(keyspace.AUDIT) or ()]


def test_every_page_sends_a_stranger_to_sign_in_and_shows_nothing(web: httpx.Client) -> None:
    """Nor does an API token in a header open a page: only a session does."""
    for method, path in PAGES:
        if PAGES[method, path] is None:
            continue
        answer = web.request(method, re.sub(r"{\w+}", "x", path))
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/ui/sign-in")


def test_every_route_of_the_pages_is_listed() -> None:
    """A page needs a line in ops/web/access.py; until then nobody may read it."""
    routers = [app(), *(each.original_router for each in app().routes if hasattr(each, "original_router"))]
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    hidden = {(method, route.path) for route in routes if not route.include_in_schema for method in route.methods or ()}
    assert hidden == {*PAGES, ("GET", "/openapi.json")}
    assert set(PAGES) & set(ACCESS) == set()


def test_the_api_takes_no_session(web: httpx.Client) -> None:
    person = signed_in(web)
    assert person.get("/metrics").status_code == 401
    assert person.post("/budget/resume").status_code == 401


def test_a_wrong_token_is_told_and_signs_nobody_in(web: httpx.Client) -> None:
    with httpx.Client(base_url=web.base_url, trust_env=False) as person:
        answer = person.post("/ui/sign-in", data={"token": "wrong", "next": "/"})
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert "this token is not known" in answer.text


def test_the_cookie_is_the_browsers_alone(web: httpx.Client) -> None:
    with httpx.Client(base_url=web.base_url, trust_env=False) as person:
        fields = {"token": TOKEN, "next": "https://evil.example"}
        answer = person.post("/ui/sign-in", data=fields, headers={"x-forwarded-proto": "https"})
        cookie = answer.headers["set-cookie"].lower()
        assert answer.headers["location"] == "/"
        assert all(flag in cookie for flag in ("httponly", "samesite=lax", "secure", "max-age=43200"))
        assert TOKEN not in cookie


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."])
def test_a_forged_cookie_is_no_session(web: httpx.Client, cookie: str) -> None:
    with httpx.Client(base_url=web.base_url, cookies={"failover_session": cookie}, trust_env=False) as person:
        assert person.get("/ui/money").status_code == 303


def test_a_revoked_token_ends_its_sessions(web: httpx.Client, client: redis.Redis) -> None:
    person = signed_in(web, token_of(client, "maria", Role.VIEWER))
    assert person.get("/ui/money").status_code == 200
    tokens.revoke(client, "maria", who="sam")
    until(lambda: person.get("/ui/money").status_code == 303, "the session is over")


def test_signing_out_ends_it_in_the_browser(web: httpx.Client) -> None:
    person = signed_in(web)
    assert person.post("/ui/sign-out", data={"csrf": csrf_of(person)}).status_code == 303
    assert person.get("/").status_code == 303


@pytest.mark.parametrize("role", [Role.REVIEWER, Role.VIEWER])
def test_a_role_may_do_what_is_listed_and_nothing_else(web: httpx.Client, client: redis.Redis, role: Role) -> None:
    person = signed_in(web, token_of(client, "maria", role))
    csrf = csrf_of(person, "/ui/settings")
    assert csrf
    for act, roles in ACTS.items():
        for answer in (person.get(f"/ui/act/{act}"), person.post(f"/ui/act/{act}", data={"csrf": csrf})):
            assert (answer.status_code == 403) == (role not in roles), act
    assert audit(client)[1:] == [] or role is Role.REVIEWER


def test_a_tenant_sees_its_own_page_and_nothing_else(
    web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    mine = producer.enqueue(chat("mine", tenant_id="acme"))
    other = producer.enqueue(chat("theirs", tenant_id="globex"))
    person = signed_in(web, token_of(client, "acme-app", Role.TENANT, "acme"))
    assert person.get("/").headers["location"] == "/ui/mine"
    page = person.get("/ui/mine").text
    assert mine in page
    assert other not in page
    assert "globex" not in page
    for method, path in PAGES:
        if (
            path.startswith("/ui/")
            and PAGES[method, path]
            and path not in ("/ui/mine", "/ui/sign-out", "/ui/{path:path}")
        ):
            assert person.request(method, re.sub(r"{\w+}", "x", path), data={"csrf": "x"}).status_code == 403, path


@pytest.mark.parametrize(
    "sent",
    [
        {"data": {}},
        {"data": {"csrf": "wrong"}},
        {"data": {"csrf": "own"}, "headers": {"origin": "https://evil.example"}},
        {"data": {"csrf": "own"}, "headers": {"origin": "null"}},
    ],
)
def test_a_form_of_another_site_does_nothing(web: httpx.Client, client: redis.Redis, sent: dict[str, Any]) -> None:
    person = signed_in(web)
    if sent["data"].get("csrf") == "own":
        sent = {**sent, "data": {"csrf": csrf_of(person)}}
    assert person.post("/ui/act/pause", **sent).status_code == 403
    assert pause.paused(client, []) == []


def test_the_csrf_of_one_session_is_not_anothers(web: httpx.Client, client: redis.Redis) -> None:
    mine, other = signed_in(web), signed_in(web)
    assert mine.post("/ui/act/pause", data={"csrf": csrf_of(other)}).status_code == 403
    assert pause.paused(client, []) == []


def test_every_answer_has_the_headers_that_keep_scripts_out(web: httpx.Client) -> None:
    person = signed_in(web)
    for path in ("/", "/ui/jobs/x", "/ui/money", "/ui/sign-in", "/status"):
        headers = person.get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS, path
    assert "'unsafe" not in HEADERS["Content-Security-Policy"]
    page = person.get("/ui/history").text
    assert re.findall(r"<script(?![^>]*src=)", page) == []
    assert re.findall(r"\s(style|on\w+)=", page) == []


def test_a_file_is_kept_for_a_year_and_sent_packed(web: httpx.Client) -> None:
    urls = re.findall(r'(?:href|src)="(/ui/static/[^"]+)"', web.get("/ui/sign-in").text)
    assert len(urls) == 4
    for url in urls:
        answer = web.get(url)
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
    for name in ("page.py", "..%2Fpage.py", "%2e%2e/page.py"):
        assert "class Pages" not in web.get(f"/ui/static/{name}").text
    assert web.get("/ui/static/page.py").status_code == 404


def test_without_any_secret_this_machine_is_signed_in_at_once(workshop: Workshop) -> None:
    with served(workshop, token=None) as web:
        here = httpx.Client(base_url=web.base_url, follow_redirects=True, trust_env=False)
        assert "Work" in here.get("/").text
        other = {"host": "evil.example"}
        assert here.get("/ui/money", headers=other).status_code in (401, 403)
        assert web.get("/ui/sign-in", headers=other).status_code == 401


def test_what_is_done_is_audited_with_the_persons_name_and_can_be_undone(
    web: httpx.Client, client: redis.Redis, workshop: Workshop
) -> None:
    workshop.worker()
    person = signed_in(web)
    csrf = csrf_of(person)
    forms: dict[str, dict[str, str]] = {
        "pause": {"tenant": "acme", "reason": "looking"},
        "resume": {"tenant": "acme"},
        "disable-route": {"route": "a/a-1", "for": "1800"},
        "enable-route": {"route": "a/a-1"},
        "set-cap": {"scope": "tenant:acme", "hard": "60"},
        "unset-cap": {"scope": "tenant:acme"},
        "save-cost": {"reason": "too dear", "for": "7200"},
    }
    for act, form in forms.items():
        assert person.get(f"/ui/act/{act}", params=form).status_code == 200, act
        answer = person.post(f"/ui/act/{act}", data={"csrf": csrf, **form})
        assert answer.status_code == 200, answer.text
        if act not in ("unset-cap",):
            assert "/ui/act/" in answer.text, act
    assert {entry["who"] for entry in audit(client)} == {"Maria@web"}
    assert len(audit(client)) == len(forms) + 1  # a route that is used again ends its kill switch, and its breaker


@pytest.mark.parametrize(
    ("act", "form", "says"),
    [
        ("pause", {"queue": "a", "tenant": "b"}, "separate flags"),
        ("pause", {"for": "17"}, "choose one of the times"),
        ("disable-route", {"route": "nope"}, "no worker has a route nope"),
        ("set-cap", {"scope": "moon:x"}, "say whose cap"),
        ("set-cap", {"scope": "total", "hard": "-1"}, "hard_usd"),
        ("set-cap", {"scope": "total", "hard": "5", "soft": "9"}, "soft_usd is above hard_usd"),
        ("requeue", {}, "choose some dead letters first"),
        ("requeue", {"id": "nope"}, "none of these jobs is a dead letter"),
        ("requeue", {"reason": "exhausted", "rate": "fast"}, "rate is a number"),
        ("answer", {"id": "nope", "answer": "x"}, "nope"),
        ("answer", {"id": "nope"}, "the answer is empty"),
        ("cancel", {"id": "nope"}, "nope"),
        ("silence", {"id": "99", "for": "7200"}, "there is no incident 99"),
        ("resume", {"again_at": "lots"}, "the percentage is a number"),
    ],
)
def test_what_cannot_be_done_is_told_on_the_page(web: httpx.Client, act: str, form: dict[str, str], says: str) -> None:
    person = signed_in(web)
    answer = person.post(f"/ui/act/{act}", data={"csrf": csrf_of(person), **form})
    assert 400 <= answer.status_code < 500, answer.text
    assert says in answer.text
    assert "<h1>" in answer.text


def test_a_form_that_is_too_large_is_refused(web: httpx.Client) -> None:
    person = signed_in(web)
    assert person.post("/ui/act/answer", data={"answer": "x" * 1_100_000}).status_code == 413
    many = "&".join(f"id={number}" for number in range(2000))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert person.post("/ui/act/requeue", content=many, headers=headers).status_code == 400


def test_an_unset_amount_is_no_cap(web: httpx.Client, client: redis.Redis) -> None:
    person = signed_in(web)
    csrf = csrf_of(person)
    person.post("/ui/act/set-cap", data={"csrf": csrf, "scope": "total", "hard": "12.5", "soft": "10"})
    assert json.loads(client.hget(keyspace.BUDGETS, "total") or b"{}")["hard_usd"] == 12.5
    person.post("/ui/act/set-cap", data={"csrf": csrf, "scope": "total", "hard": "", "soft": ""})
    assert json.loads(client.hget(keyspace.BUDGETS, "total") or b"{}")["hard_usd"] is None
    assert statement.set_by(client) == {"total": "Maria@web"}


def test_a_providers_cap_is_kept_under_its_own_name(web: httpx.Client, client: redis.Redis) -> None:
    person = signed_in(web)
    person.post("/ui/act/set-cap", data={"csrf": csrf_of(person), "scope": "provider:Gemini", "hard": "5"})
    assert set(statement.set_by(client)) == {"provider:google"}


def test_while_redis_is_away_the_page_says_so(workshop: Workshop, client: redis.Redis) -> None:
    with served(workshop, REDIS_URL="redis://127.0.0.1:1/0") as web:
        answer = web.post("/ui/sign-in", data={"token": TOKEN, "next": "/"})
        assert answer.status_code == 503
        assert "Redis does not answer" in answer.text


def test_the_status_page_is_off_until_it_is_turned_on(web: httpx.Client) -> None:
    assert web.get("/status").status_code == 404


def test_the_status_page_has_a_clients_words_only(workshop: Workshop, client: redis.Redis) -> None:
    with served(workshop, STATUS_PAGE="true") as web, httpx.Client(base_url=web.base_url, trust_env=False) as anybody:
        page = anybody.get("/status").text
        assert "Everything works" in page
        assert "/ui/money" not in page


def test_a_form_of_a_session_that_is_over_says_that_nothing_was_done(web: httpx.Client) -> None:
    with httpx.Client(base_url=web.base_url, trust_env=False, follow_redirects=True) as person:
        assert "Nothing was done: your session was over" in person.post("/ui/act/answer", data={"answer": "42"}).text
        assert "your session was over" not in person.get("/ui/review").text


def test_viewers_that_leave_at_once_keep_nothing_from_the_others(workshop: Workshop, client: redis.Redis) -> None:
    """Each cancels its wait more than once, as the server does it."""
    with served(workshop) as web:
        person = signed_in(web)
        asyncio.run(_look_and_leave(f"{web.base_url}/ui/live", dict(person.cookies)))
        with person.stream("GET", "/ui/live", timeout=10) as live:
            events = live.iter_text()
            until(lambda: "event: work" in next(events), "the next one sees what is true")
            client.zadd(keyspace.finished(Q), {"one": 9e9})
            until(lambda: "event: work" in next(events), "and what changes")
        serving = workshop.processes[-1]
        serving.terminate()
        assert serving.wait(20) == 0


async def _look_and_leave(url: str, cookies: dict[str, str], viewers: int = 60) -> None:
    async def one() -> None:
        async with session.get(url) as answer:
            await answer.content.readuntil(b"event: work")
            everybody_sees.release()
            await asyncio.Event().wait()

    everybody_sees = asyncio.Semaphore(0)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookies=cookies) as session:
        tasks = [asyncio.create_task(one()) for _ in range(viewers)]
        for _ in range(viewers):
            await asyncio.wait_for(everybody_sees.acquire(), 20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
