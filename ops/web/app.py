"""The web app: its routes, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import redis
from fastapi import Depends, FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.concurrency import run_in_threadpool

from ops.web.access import ACCESS, WITHOUT_TOKEN
from ops.web.auth import Guard
from ops.web.batches.runner import Runner
from ops.web.batches.store import Store
from ops.web.budget import budget
from ops.web.draining import Draining
from ops.web.health import health
from ops.web.openai.models import Models
from ops.web.openai.routes import openai_surface
from ops.web.pages.page import Pages
from ops.web.pages.routes import pages_router
from ops.web.requests import Requests
from ops.web.sessions import Sessions
from ops.web.settings import Settings
from producer import Producer
from producer.client import AsyncProducer
from producer.environment import Environment
from producer.intake import COMPONENTS, install_errors, jobs
from producer.redis_server.cancelling import cancelled
from worker.control.pause import holding
from worker.control.tokens import Tokens

TITLE = "failover-worker"
BEARER = "bearer"
TOKEN_HELP = "FAILOVER_API_TOKEN, or a token of `failover tokens create`"  # noqa: S105 - a text
DESCRIPTION = "Submit LLM jobs and read their answers; pause and resume by the budget; see the status."


def create_app(
    producer: AsyncProducer, client: redis.Redis, settings: Settings, draining: Draining, environment: Environment
) -> FastAPI:
    """`producer`: for frequent requests; `client`: a blocking client for reports that run in a thread; `draining`: begins when
    the process is asked to stop; `environment`: of the files that pages read."""
    tokens = Tokens(producer.client, settings.tokens)
    sessions = Sessions(producer.client, settings, tokens)
    guard = Guard(settings, tokens, sessions)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)

    models = Models(client, producer.policies)
    store = Store(producer, settings.files)
    runner = Runner(producer, store, models)

    app = FastAPI(
        title=TITLE,
        description=DESCRIPTION,
        lifespan=_lifespan(producer, client, runner),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(guard.admit)],
    )
    app.add_middleware(Requests, registry=registry)
    install_errors(app)

    async def note() -> str:
        flags = await run_in_threadpool(holding, client, producer.queue)
        return "Jobs are paused now; they continue automatically after the pause." if flags else ""

    app.include_router(jobs(producer, note))
    app.include_router(openai_surface(producer, models, draining, store, runner))
    app.include_router(budget(producer.client, guard, settings.guardrail))
    app.include_router(health(client, producer.queue, registry, unsafe_redis=settings.unsafe_redis))

    pages = Pages(Producer(client, producer.policies, producer.queue), environment)
    app.include_router(pages_router(pages, sessions, settings, draining))

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        return JSONResponse(_document(app))

    return app


def _lifespan(
    producer: AsyncProducer, client: redis.Redis, runner: Runner
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        batches = asyncio.create_task(runner.run())
        yield
        await cancelled([batches])
        await producer.close()
        client.close()

    return lifespan


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with what FastAPI cannot derive: schemas of bodies that are read by hand, and who may call."""
    document = app.openapi()
    components = document["components"]
    components["schemas"] |= COMPONENTS
    components["securitySchemes"] = {BEARER: {"type": "http", "scheme": "bearer", "description": TOKEN_HELP}}
    for (method, route), roles in ACCESS.items():
        path = route.replace(":path}", "}")
        operation = document["paths"].get(path, {}).get(method.lower(), {})
        if roles is not WITHOUT_TOKEN:
            operation |= {"security": [{BEARER: []}], "x-roles": sorted(roles)}
    return document
