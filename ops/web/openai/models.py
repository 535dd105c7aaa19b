"""GET /v1/models: what a request may name as its model: job types, and routes by their names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

import redis
from fastapi import Response
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from ops.web.openai.errors import NoAnswer
from producer.policy import Policies
from worker.control import worker_registry

LOOK_SECONDS = 5.0


class Models:
    """The job types of policies/jobs.yaml, and the routes that workers have, which are read at most every LOOK_SECONDS."""

    def __init__(self, client: redis.Redis, policies: Policies) -> None:
        self._client, self._policies = client, policies
        self._routes: dict[str, str] = {}  # name -> provider
        self._looked_at = float("-inf")
        self._looking: asyncio.Future[None] | None = None
        self._began = int(time.time())

    async def routes(self) -> Collection[str]:
        """The names of the routes; those of the last look while the next one is under way, or Redis is away."""
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            first, self._looked_at = not self._routes, time.monotonic()
            self._looking = asyncio.ensure_future(self._refresh())
            if first:
                await self._looking
        return self._routes

    async def _refresh(self) -> None:
        self._routes = await run_in_threadpool(self._look)

    def _look(self) -> dict[str, str]:
        try:
            found = worker_registry.usable(worker_registry.views(self._client))
        except RedisError:
            return self._routes
        return {name: str(facts["provider"]) for name, facts in found.items()}

    async def all(self) -> Response:
        """Every model: job types, then routes."""
        await self.routes()
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self._names()]})

    async def show(self, model: str) -> Response:
        """One of them. Any other model of a request means the job type `default`."""
        await self.routes()
        if model not in self._names():
            message = (
                f"the model {model!r:.200} is neither a job type of policies/jobs.yaml nor a route of a running worker"
            )
            raise NoAnswer(404, "invalid_request_error", "model_not_found", message, {})
        return JSONResponse(self._model(model))

    def _names(self) -> list[str]:
        return [*self._policies.job_types, *(name for name in self._routes if name not in self._policies.job_types)]

    def _model(self, name: str) -> dict[str, Any]:
        owner = "failover-worker" if name in self._policies.job_types else self._routes[name]
        return {"id": name, "object": "model", "created": self._began, "owned_by": owner}
