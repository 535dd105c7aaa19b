"""What clients see: a tenant's own page (its jobs, objectives and state, nothing else), and the public page `/status`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from ops.reports import job_search
from ops.reports.job_search import Query
from ops.reports.slo.state import TITLES, shown, state, target_shown
from ops.web.pages.page import Pages
from ops.web.seldom import at_most_every
from ops.web.sessions import Visitor
from producer.environment import flag
from producer.errors import Forbidden
from worker.notify.incidents import Incident, Incidents, explains
from worker.notify.kinds import Kind
from worker.objectives.policy import load_slo_policy
from worker.queue.dead_letters import now_ms
from worker.reports import client_status
from worker.reports.client_status import UNKNOWN_ETA

LISTED = 50
PAST_MS = 90 * 86_400_000
KEPT_SECONDS = 10.0  # the public page is made so often at most, however many read it
DAYS = 30


@dataclass(frozen=True)
class PublicState:
    """The state in a client's words: no provider, no other client, no number of jobs."""

    level: str  # good | watch | bad
    text: str


GOOD = PublicState("good", "Everything works. Answers arrive as usual.")
LATER = PublicState("watch", "Some answers arrive later or shorter than usual. Nothing is lost.")


def public_state(opened: list[Incident], eta: str) -> PublicState:
    """The state from the open incidents. `eta`: as a message to a client promises it."""
    outages = [
        each for each in opened if explains(each) and each.kind not in (Kind.ROUTE_OPEN, Kind.CREDENTIALS, Kind.CAPPED)
    ]
    if outages:
        expected = "" if eta == UNKNOWN_ETA else f" We expect to be done {eta}."
        text = f"Answers are delayed. No work is lost: it waits, and continues by itself.{expected}"
        return PublicState("bad", text)
    if any(each.kind in (Kind.LATE, Kind.DEGRADED, Kind.ROUTE_OPEN, Kind.CREDENTIALS) for each in opened):
        return LATER
    return GOOD


def add(router: APIRouter, pages: Pages) -> None:
    public_page = at_most_every(KEPT_SECONDS, lambda: _public_page(pages))

    @router.get("/status")
    def status(request: Request) -> Response:
        if not flag(pages.environment, "STATUS_PAGE", default=False):
            return pages.failed(
                request, 404, "There is no status page here. The operator turns it on with STATUS_PAGE=true."
            )
        return HTMLResponse(public_page())

    @router.get("/ui/mine")
    def mine(request: Request) -> Response:
        visitor: Visitor = request.state.visitor
        if visitor.tenant is None:
            raise Forbidden("this page is a client's own")
        tenant, client = visitor.tenant, pages.client
        found = job_search.search(client, pages.queues(), Query(tenant=tenant), LISTED)
        now = now_ms(client)
        scope = state(
            client, load_slo_policy(pages.environment), now - DAYS * 86_400_000, now, "tenant", tenant
        ).scopes[0]
        rows = [
            (TITLES[each.sli], shown(each.sli, each.value), target_shown(each), each.met) for each in scope.indicators
        ]
        # What a provider says, and which one it was, is between it and us.
        own = [replace(job, why="", route="") for job in found.jobs]
        return pages.render(
            request, "mine.html", tenant=tenant, jobs=own, partly=found.partly, rows=rows, days=DAYS,
            requests=scope.counts.requests, state=_now(pages),
        )  # fmt: skip


def _now(pages: Pages) -> PublicState:
    opened = [each for each in Incidents(pages.client).unsettled() if each.resolved_ms is None and not each.fades]
    eta = client_status.eta(client_status.minutes(pages.client, pages.queues()))
    return public_state(opened, eta)


def _public_page(pages: Pages) -> str:
    now = now_ms(pages.client)
    past = list(_past(Incidents(pages.client).since(now - PAST_MS)))[::-1][:LISTED]
    own = {"visitor": None, "path": "/status", "in_dialog": False}
    return pages.fragment("status.html", **own, state=_now(pages), past=past, now_ms=now)


def _past(incidents: list[Incident]) -> Iterator[tuple[int, int]]:
    """(begin, end) of each time in which answers were delayed for everybody, Unix milliseconds; overlapping ones are one."""
    spans: list[tuple[int, int]] = []
    for each in incidents:
        if each.resolved_ms is None or public_state([each], "").level != "bad":
            continue
        if spans and each.opened_ms <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], each.resolved_ms))
        else:
            spans.append((each.opened_ms, each.resolved_ms))
    yield from spans
