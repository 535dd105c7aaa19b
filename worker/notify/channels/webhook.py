"""Events to a URL, signed as Standard Webhooks (https://www.standardwebhooks.com): incidents, and ends of jobs.

An event keeps its `webhook-id` when it is sent again, so a receiver can ignore an id that it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from standardwebhooks import Webhook

from producer.errors import ConfigurationError, Problem
from worker.network import DIRECT, Network
from worker.notify.channels.base import Found, Outcome, Post, Posted, Refused, failure

TIMEOUT_SECONDS = 10.0
# status codes after which this event is never accepted
BODY_REFUSED = frozenset({400, 405, 406, 411, 413, 414, 415, 422})
EVENTS = {"opening": "incident.opened", "closing": "incident.resolved", "test": "failover.test"}


def signed(event_id: str, event: str, data: Mapping[str, Any], secret: str) -> tuple[bytes, dict[str, str]]:
    """(body, headers) of one event, signed with `secret` at the present time."""
    now = datetime.now(UTC)
    body = to_json({"type": event, "timestamp": now.isoformat(), "data": data})
    headers = {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
    }
    headers["webhook-signature"] = Webhook(secret).sign(event_id, now, body.decode())
    return body, headers


def checked_secret(variable: str, secret: str) -> str:
    """The secret, if it can sign. Raises ConfigurationError with the name of the `variable`."""
    try:
        if not secret:
            raise ValueError  # noqa: TRY301 - the same message
        Webhook(secret).sign("probe", datetime.now(UTC), "{}")
    except (ValueError, RuntimeError):
        fix = "make one with `openssl rand -base64 32`; it may begin with `whsec_`"
        raise ConfigurationError([Problem(variable, "", "is not a signing secret", fix)]) from None
    return secret


class IncidentWebhook:
    """Sends incident.opened, incident.updated and incident.resolved to NOTIFY_WEBHOOK_URL."""

    name, edits, digest_factor = "webhook", False, 1.0

    def __init__(self, url: str, secret: str, network: Network = DIRECT) -> None:
        self._url, self._secret, self._network = url, secret, network

    def send(self, post: Post) -> Outcome:
        import httpx  # a tenth of a worker's start, for the few that have such a channel

        incident = post.incident
        data = {
            "incident_id": incident.id,
            "kind": incident.kind,
            "subject": incident.subject,
            "queue": incident.queue,
            "opened_ms": incident.opened_ms,
            "resolved_ms": incident.resolved_ms,
            "dead": incident.dead,
            "saved": incident.saved,
            "late": incident.late,
            "degraded": incident.degraded,
            "tenants": incident.tenants,
            "jobs": incident.jobs,
            "headline": post.message.headline,
            "lines": post.message.lines,
            "commands": post.message.commands,
        }
        event = EVENTS.get(post.part, "incident.updated")
        body, headers = signed(f"incident-{post.name}", event, data, self._secret)
        try:
            with (
                httpx.Client(timeout=TIMEOUT_SECONDS, **self._network.options(self._url)) as client,
                client.stream("POST", self._url, content=body, headers=headers) as reply,
            ):
                status = reply.status_code  # the body is not needed
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # repeating it is harmless: same id
            return Refused(f"it does not answer: {type(error).__name__}")
        if 200 <= status < 300:
            return Posted()
        if status >= 500:
            return Refused(failure(status), theirs=True)
        return Refused(f"it answered {status}", hopeless=status in BODY_REFUSED)

    def find(self, post: Post, since_ms: int) -> Found:
        return Refused("sending it again is harmless, because it keeps its id")
