"""Spans as far as they are alike: made once and copied, because that takes a tenth of the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from producer.telemetry.recorder import Recorder
from producer.telemetry.spans import CALL, PROCESS, Value, failed, put
from worker.routes.names import canonical
from worker.routes.route import Route

KEPT = 1024  # of each kind
# gen_ai.provider.name where the conventions have another word than routes.json
PROVIDERS = {
    "google": "gcp.gemini",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
Labels = tuple[tuple[str, Value], ...]
For = tuple[str, str, str]  # tenant, feature, job type


class Process(NamedTuple):
    """What spans of executions may share. `error`: its type, "" for none. `final`: route, provider, model, and whether the
    answer came from the cache; () where there was no answer to come."""

    queue: str
    number: int
    outcome: str
    error: str
    final: tuple[str | None, str | None, str | None, bool] | tuple[()]
    job: For


class Call(NamedTuple):
    """What spans of calls may share. `model`, `ends`: of the answer, its model and finish reasons."""

    route: str
    outcome: str
    status: int | None
    model: str
    ends: tuple[str, ...]
    job: For


class Templates:
    """`routes`: those of the configuration now."""

    def __init__(self, recorder: Recorder, routes: Callable[[], Sequence[Route]]) -> None:
        self._recorder, self._routes = recorder, routes
        self._known: Sequence[Route] = ()
        self._process = lru_cache(KEPT)(self._new_process)
        self._call = lru_cache(KEPT)(self._new_call)

    def process(self, like: Process) -> Span:
        """The span of an execution, without what is its own. It is to be copied."""
        return self._process(like)

    def call(self, like: Call) -> Span:
        """The span of a call to a provider, without what is its own. It is to be copied."""
        self._look()
        return self._call(like)

    def labels(self, route: str) -> Labels:
        """The attributes of a call by which it is counted."""
        found = next((each for each in self._routes() if each.name == route), None)
        if found is None:  # it has left the map
            return (("gen_ai.operation.name", "chat"), ("failover.route", route))
        parts, provider = urlsplit(found.base_url), canonical(found.entry.provider)
        return (
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", PROVIDERS.get(provider, provider)),
            ("gen_ai.request.model", found.model),
            ("server.address", parts.hostname),
            ("server.port", parts.port or {"http": 80, "https": 443}.get(parts.scheme)),
            ("failover.route", route),
        )

    def _look(self) -> None:
        """A new configuration may give a name to another route."""
        if (routes := self._routes()) is not self._known:
            self._known = routes
            self._call.cache_clear()

    def _new_process(self, like: Process) -> Span:
        span = Span(name=f"process {like.queue}", kind=PROCESS, flags=1)
        attributes = span.attributes
        put(attributes, "messaging.system", "failover-worker")
        put(attributes, "messaging.operation.type", "process")
        put(attributes, "messaging.operation.name", "process")
        put(attributes, "messaging.destination.name", like.queue)
        put(attributes, "failover.execution", like.number)
        put(attributes, "failover.outcome", like.outcome)
        for name, value in zip(("failover.route", "provider", "model", "cache_hit"), like.final, strict=False):
            put(attributes, name, value)
        self._recorder.tag(span, *like.job)
        if like.error:
            failed(span, like.error)
        return span

    def _new_call(self, like: Call) -> Span:
        route = next((each for each in self._known if each.name == like.route), None)
        span = Span(name=f"chat {route.model}" if route else "chat", kind=CALL, flags=1)
        attributes = span.attributes
        for name, value in self.labels(like.route):
            put(attributes, name, value)
        put(attributes, "provider", route.entry.provider if route else None)
        put(attributes, "model", route.model if route else None)
        put(attributes, "failover.tier", route.tier if route else None)
        put(attributes, "cache_hit", False)
        put(attributes, "gen_ai.response.model", like.model)
        put(attributes, "gen_ai.response.finish_reasons", like.ends or None)
        put(attributes, "http.response.status_code", like.status)
        self._recorder.tag(span, *like.job)
        if like.outcome != "ok":
            failed(span, like.outcome)
        return span
