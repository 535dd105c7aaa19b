"""The routes of /v1."""

from __future__ import annotations

from typing import Any

import redis
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from ops.web.draining import Draining
from ops.web.openai.chat import Chat
from ops.web.openai.models import Models
from ops.web.responses.handlers import Responses
from producer.client import AsyncProducer
from producer.intake import ErrorBody, errors

ERROR: dict[str, Any] = {"model": ErrorBody, "description": "The message says what is wrong"}
STREAM = {"text/event-stream": {"schema": {"type": "string"}}}


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


def openai_surface(producer: AsyncProducer, client: redis.Redis, draining: Draining) -> APIRouter:
    """`client`: a blocking client, for what is read in a thread."""
    router = APIRouter(prefix="/v1", tags=["openai"])
    models = Models(client, producer.policies)
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
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": CHAT_BODY}}}},
    )(chat.complete)
    _add_responses(router, Responses(producer, models.routes, draining))
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
        responses={200: {"content": STREAM}, **ended, **errors(400, 401, 403, 404, 409, 413, 429)},
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": RESPONSE_BODY}}}},
    )(responses.create)
    router.get(one, response_model=ResponseObject, responses={200: {"content": STREAM}, 400: ERROR, **found})(
        responses.show
    )
    router.get(one + "/input_items", response_model=_Open, responses=found)(responses.items)
    router.post(one + "/cancel", response_model=ResponseObject, responses={409: ERROR, **found})(responses.cancel)
    router.delete(one, response_model=_Open, responses=found)(responses.delete)


RESPONSE_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": {"type": ["string", "null"]},
        "input": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "object"}}]},
        "instructions": {"type": ["string", "null"]},
        "previous_response_id": {"type": ["string", "null"]},
        "background": {"type": ["boolean", "null"]},
        "store": {"type": ["boolean", "null"]},
        "stream": {"type": ["boolean", "null"]},
    },
}
CHAT_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["messages"],
    "additionalProperties": True,
    "properties": {
        "model": {"type": ["string", "null"]},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["role"], "properties": {"role": {"type": "string"}}},
        },
        "stream": {"type": ["boolean", "null"]},
        "stream_options": {"type": ["object", "null"]},
        "metadata": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        "user": {"type": ["string", "null"]},
        "n": {"enum": [1, None]},
    },
}
