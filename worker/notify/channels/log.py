"""The worker's own log as a channel, so that incidents are recorded even if no other channel is configured."""

from __future__ import annotations

import logging

from worker.notify.channels.base import Found, Outcome, Post, Posted, Unfindable

log = logging.getLogger("failover.worker")


class Log:
    """Writes a warning for every part of an incident."""

    name, edits, digest_factor = "log", False, 1.0

    def send(self, post: Post) -> Outcome:
        incident = post.incident
        facts = {"incident": incident.id, "kind": str(incident.kind), "headline": post.message.headline}
        log.warning(f"incident {post.part.partition('-')[0]}", extra={**facts, "lines": list(post.message.lines)})
        return Posted()

    def find(self, post: Post, since_ms: int) -> Found:
        return Unfindable("the log cannot be searched")
