"""Records every request: an id for the client, a line for the log, a count and a duration for Prometheus."""

from __future__ import annotations

import logging
import time
from uuid import uuid4

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.intake import Caller, told_error

log = logging.getLogger("failover.web")

QUIET = ("/healthz", "/readyz", "/metrics")  # requested every few seconds: logged only when they fail
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 25)


class Requests:
    """ASGI middleware. An exception of our own code becomes a 500 without internal details."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ("method", "route", "status")
        self._count = Counter("failover_http_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "failover_http_request_seconds", "Until the answer.", ("route",), buckets=SECONDS, registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, began, status = uuid4().hex, time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("a request failed in our own code", extra={"request": request_id})
            if not status:
                await told_error(500, "failover-worker itself failed", "internal_error")(scope, receive, send_with_id)
        seconds = time.monotonic() - began
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._count.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)
        if status >= 400 or route not in QUIET:
            caller: Caller | None = scope.get("state", {}).get("caller")  # set by Guard
            facts = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000)}
            facts["by"] = caller.who if caller else None
            level = logging.ERROR if status == 500 else logging.WARNING if status > 500 else logging.INFO
            log.log(level, "request", extra={**facts, "request": request_id})
