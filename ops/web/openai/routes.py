"""The routes of /v1."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from ops.web.batches.batches import Batches
from ops.web.batches.files import PURPOSES, Files
from ops.web.batches.runner import Runner
from ops.web.batches.store import Store
from ops.web.draining import Draining
from ops.web.openai.bodies import BATCH_BODY, CHAT_BODY, RESPONSE_BODY, json_body
from ops.web.openai.chat import Chat
from ops.web.openai.models import Models
from ops.web.responses.handlers import Responses
from producer.client import AsyncProducer
from producer.intake import ErrorBody, errors

ERROR: dict[str, Any] = {"model": ErrorBody, "description": "The message says what is wrong"}
STREAM: dict[str, Any] = {"text/event-stream": {}}


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class ChatCompletion(_Open):
    """As OpenAI's: `model` names what answered."""

    id: str
    object: str
    choices: list[dict[str, Any]]


class ResponseObject(_Open):
    """As OpenAI's."""

    id: str
    object: str
    status: str
    output: list[dict[str, Any]]


class JobAccepted(BaseModel):
    """A job that goes on. Its state and answer are at `status_url`."""

    id: str
    object: str
    status: str
    status_url: str


class Model(BaseModel):
    id: str
    object: str
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: str
    data: list[Model]


def unanswered(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a job without an answer."""
    return {
        status: {"model": ErrorBody, "description": "The job ended without an answer, or is late"}
        for status in statuses
    }


def openai_surface(
    producer: AsyncProducer, models: Models, draining: Draining, store: Store, runner: Runner
) -> APIRouter:
    """`store`: where files are kept. `runner`: runs batches."""
    router = APIRouter(prefix="/v1", tags=["openai"])
    chat = Chat(producer, models.routes, draining)
    router.post(
        "/chat/completions",
        response_model=ChatCompletion,
        responses={
            200: {"content": STREAM},
            202: {"model": JobAccepted},
            **unanswered(500, 502, 503, 504),
            **errors(400, 401, 403, 409, 413, 429),
        },
        openapi_extra=json_body(CHAT_BODY),
    )(chat.complete)
    _add_responses(router, Responses(producer, models.routes, draining))
    _add_files(router, Files(producer, store))
    _add_batches(router, Batches(producer, runner.wake))
    router.get("/models", response_model=ModelList, responses=errors(401, 403, 503))(models.all)
    router.get("/models/{model:path}", response_model=Model, responses=errors(401, 403, 404, 503))(models.show)
    return router


def _add_responses(router: APIRouter, responses: Responses) -> None:
    ended = unanswered(500, 502, 503, 504)
    found = errors(401, 403, 404, 503)
    one = "/responses/{response_id}"
    router.post(
        "/responses",
        response_model=ResponseObject,
        responses={
            200: {"content": STREAM},
            202: {"model": _Open},
            **ended,
            **errors(400, 401, 403, 404, 409, 413, 429),
        },
        openapi_extra=json_body(RESPONSE_BODY),
    )(responses.create)
    router.get(one, response_model=ResponseObject, responses={200: {"content": STREAM}, 400: ERROR, **found})(
        responses.show
    )
    router.get(one + "/input_items", response_model=_Open, responses=found)(responses.items)
    router.post(one + "/cancel", response_model=ResponseObject, responses={409: ERROR, **found})(responses.cancel)
    router.delete(one, response_model=_Open, responses=found)(responses.delete)


def _add_files(router: APIRouter, files: Files) -> None:
    found, one = errors(401, 403, 404, 503), "/files/{file_id}"
    upload = {"type": "object", "required": ["file", "purpose"], "properties": {"file": BINARY, "purpose": PURPOSE}}
    content = {"multipart/form-data": {"schema": upload}}
    router.post(
        "/files",
        response_model=_Open,
        responses={507: ERROR, **errors(400, 401, 403, 413, 503)},
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )(files.create)
    router.get("/files", response_model=_Open, responses=errors(400, 401, 403, 503))(files.list_files)
    router.get(one, response_model=_Open, responses=found)(files.show)
    raw: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {"schema": BINARY}}}}
    router.get(one + "/content", response_class=Response, responses={**raw, **found})(files.content)
    router.delete(one, response_model=_Open, responses=found)(files.delete)


def _add_batches(router: APIRouter, batches: Batches) -> None:
    found, one = errors(401, 403, 404, 503), "/batches/{batch_id}"
    router.post(
        "/batches",
        response_model=_Open,
        responses=errors(400, 401, 403, 404, 413, 503),
        openapi_extra=json_body(BATCH_BODY),
    )(batches.create)
    router.get("/batches", response_model=_Open, responses=errors(400, 401, 403, 503))(batches.list_batches)
    router.get(one, response_model=_Open, responses=found)(batches.show)
    router.post(one + "/cancel", response_model=_Open, responses={409: ERROR, **found})(batches.cancel)


BINARY: dict[str, Any] = {"type": "string", "format": "binary"}
PURPOSE: dict[str, Any] = {"enum": list(PURPOSES)}
