"""A message to a client, filled from the state of the client's jobs and from the incident that it is about."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from producer.client import DEFAULT_QUEUE
from producer.errors import UsageError
from worker.control.pause import utc
from worker.notify.client_messages import PLACEHOLDERS, ClientMessage
from worker.notify.incidents import Incident, Incidents
from worker.notify.kinds import KIND_INFO
from worker.queue.dead_letters import now_ms
from worker.reports import client_status
from worker.reports.client_status import ClientStatus

INCIDENT_AGE_MS = 7 * 86_400_000  # an older one is hardly what the client is told about


@dataclass(frozen=True)
class Filled:
    """A text to paste. `unknown`: what stands in [brackets] in it, because nothing is known for it. `of_nothing`: no job of the
    tenant waits, and no incident names it."""

    tenant: str
    text: str
    facts: dict[str, str]
    unknown: tuple[str, ...]
    of_nothing: bool = False


def filled_for(
    client: redis.Redis, message: ClientMessage, found: ClientStatus, incident_id: str | None = None
) -> Filled:
    """The message for the client of `found`. Without an incident it is about the client's: the open one, or the newest of the
    last week. Raises UsageError for an unknown incident."""
    facts = found.facts(client_status.minutes(client, found.queues or (DEFAULT_QUEUE,)))
    if incident_id is None:
        about = _incident(client, found.tenant, message.name, waits=found.jobs > 0)
    else:
        about = incident_named(client, incident_id)
    if about is not None:
        facts["since"] = utc(about.opened_ms / 1000)
    unknown = {word: f"[{PLACEHOLDERS[word]}]" for word in sorted(message.needs - facts.keys())}
    of_nothing = not found.jobs and about is None
    return Filled(found.tenant, message.filled(facts | unknown), facts, tuple(unknown.values()), of_nothing)


def incident_named(client: redis.Redis, incident_id: str) -> Incident:
    """The incident with this id. Raises UsageError."""
    found = Incidents(client).named([incident_id])
    if not found:
        raise UsageError(f"there is no incident {incident_id}; `failover incidents` lists them")
    return found[0]


def _incident(client: redis.Redis, tenant: str, name: str, *, waits: bool) -> Incident | None:
    """The incident that names the client and that the message is about; None if there is none in INCIDENT_AGE_MS.

    One whose kind has this message goes first, then an open one, then the newest. `waits`: jobs of the client wait, whose
    time is known; then an incident counts only if it has this message and is open, or has dead letters left.
    """
    found = [
        each
        for each in Incidents(client).since(now_ms(client) - INCIDENT_AGE_MS)
        if tenant in (*each.tenants, *each.degraded_of)
        and (not waits or (_has(each, name) and (each.resolved_ms is None or each.left)))
    ]
    return max(found, key=lambda each: (_has(each, name), each.resolved_ms is None, each.opened_ms), default=None)


def _has(incident: Incident, name: str) -> bool:
    return KIND_INFO[incident.kind].message == name
