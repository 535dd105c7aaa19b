"""The routes of /v1."""

from __future__ import annotations

from typing import Any

import redis
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from ops.web.draining import Draining
from ops.web.openai.chat import Chat
from ops.web.openai.models import Models
from producer.client import AsyncProducer
from producer.intake import ErrorBody, errors

STREAM = {"text/event-stream": {"schema": {"type": "string"}}}


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class ChatCompletion(_Open):
    """As OpenAI's: `model` names what answered."""

    id: str
    object: str
    choices: list[dict[str, Any]]


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
    router.get("/models", response_model=ModelList, responses=errors(401, 403, 503))(models.all)
    router.get("/models/{model:path}", response_model=Model, responses=errors(401, 403, 404, 503))(models.show)
    return router


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
