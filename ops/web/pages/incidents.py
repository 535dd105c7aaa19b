"""Incidents: open and past ones, the story of one, and the messages to the clients that it names."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ops.reports.client_message import filled_for, incident_named
from ops.web.pages.next_steps import BY_HAND, named_in, steps_of
from ops.web.pages.page import Pages, link
from producer.errors import BadRequest
from worker.notify.client_messages import load_messages, message_named
from worker.notify.incident_text import ALL_CLEAR
from worker.notify.incidents import Incidents
from worker.notify.kinds import KIND_INFO
from worker.queue.dead_letters import now_ms
from worker.reports import client_status

LISTED = 50
TENANTS_LISTED = 20
STORY_LISTED = 300
MONTH_MS = 31 * 86_400_000


def add(router: APIRouter, pages: Pages) -> None:
    @router.get("/ui/incidents")
    def incidents(request: Request) -> Response:
        store, now = Incidents(pages.client), now_ms(pages.client)
        until = request.query_params.get("until", "")
        end = int(until) if until.isdecimal() else now
        found = store.since(end - MONTH_MS, end)[::-1]
        older = link("/ui/incidents", until=found[LISTED].opened_ms) if len(found) > LISTED else ""
        listed = found[:LISTED]
        opened = [each for each in store.unsettled() if each.resolved_ms is None and not until]
        over = [each for each in listed if each.resolved_ms is not None or until]
        silenced = store.silenced([*opened, *over])
        steps = {each.id: steps_of(each) for each in opened}
        return pages.render(
            request, "incidents.html", opened=opened, over=over, silenced=silenced, steps=steps, now_ms=now, older=older
        )

    @router.get("/ui/incidents/{incident_id}")
    def incident(request: Request, incident_id: str) -> Response:
        found = incident_named(pages.client, incident_id)
        store = Incidents(pages.client)
        story = store.story(found.id, -STORY_LISTED)
        info = KIND_INFO[found.kind]
        tenants = list(found.tenants)[:TENANTS_LISTED] if info.message else []
        return pages.render(
            request, "incident.html", incident=found, story=story[::-1], info=info, steps=steps_of(found),
            by_hand=BY_HAND.get(found.kind, ""), tenants=tenants, more_tenants=len(found.tenants) - len(tenants),
            silenced=store.silenced([found]).get(found.id, ""), now_ms=now_ms(pages.client),
            messages=sorted(load_messages(pages.environment)),
            for_whoever_asks=next(iter(named_in(found, "messages", "show")), info.message),
        )  # fmt: skip

    @router.get("/ui/message")
    def message(request: Request) -> Response:
        """One message, filled for one client. It reads every unfinished job, so it is made when somebody asks for it."""
        given = request.query_params
        tenant, name = given.get("tenant", "").strip(), given.get("name", "").strip()
        if not tenant:
            raise BadRequest("name the client")
        template = message_named(load_messages(pages.environment), name)
        incident_id = given.get("incident") or None
        if name == ALL_CLEAR and incident_id and incident_named(pages.client, incident_id).resolved_ms is None:
            raise BadRequest("this incident is still open: tell nobody that it is over")
        filled = filled_for(pages.client, template, client_status.of_tenant(pages.client, tenant), incident_id)
        return pages.render(request, "message.html", filled=filled, when_to_send=template.when)
