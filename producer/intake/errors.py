"""Errors over HTTP, in OpenAI's form: ours, Redis's and the framework's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from redis.exceptions import OutOfMemoryError, RedisError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from producer.errors import FailoverError, InvalidBody, InvalidJob, RedisFull, ServiceUnavailable

OPENAI = "/v1/"
WITHOUT_BASE = ("/chat/", "/responses", "/models", "/files", "/batches", "/completions", "/embeddings")
_SURROGATES = re.compile("[\ud800-\udfff]")


class ErrorFacts(BaseModel):
    message: str
    type: str
    code: str | None = None
    param: str | None = None


class ErrorBody(BaseModel):
    """The format of every error, as OpenAI's API has it."""

    error: ErrorFacts


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The body is not valid JSON"},
    401: {"model": ErrorBody, "description": "No token, or a wrong one"},
    403: {"model": ErrorBody, "description": "The token may not do this"},
    404: {"model": ErrorBody, "description": "Unknown"},
    409: {"model": ErrorBody, "description": "It collides with what stands"},
    413: {"model": ErrorBody, "description": "Too large"},
    422: {"model": ErrorBody, "description": "A field is wrong; the message names it"},
    429: {"model": ErrorBody, "description": "The tenant is over its rate; Retry-After says when to come back"},
    503: {"model": ErrorBody, "description": "Redis is away or full; nothing was accepted, try again"},
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: ERRORS[status] for status in statuses}


def install_errors(app: FastAPI) -> None:
    """Make the app answer our errors, Redis's and the framework's in one format (ErrorBody)."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, FailoverError)  # noqa: S101 - the handler is registered for it
        param = error.field if isinstance(error, (InvalidBody, InvalidJob)) else None
        headers, status = error.headers(), error.status
        if request.url.path.startswith(OPENAI):  # OpenAI has no 422, and its SDKs send a 409 again
            status = 400 if status == 422 else status
            headers = {"x-should-retry": "false", **headers} if status == 409 else headers
        return told_error(status, str(error), error.code, param, headers, getattr(error, "kind", None))

    async def frameworks(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        messages = {404: f"there is no {request.url.path} here", 405: f"{request.method} is not for {request.url.path}"}
        message = messages.get(error.status_code, str(error.detail))
        if error.status_code == 404 and request.url.path.startswith(WITHOUT_BASE):
            message += ": the base URL of an SDK ends in /v1"
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods(app, request)))
        return told_error(error.status_code, message, "http_error", None, headers)

    async def parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        return told_error(422, f"{field}: {first['msg']}", "invalid_parameter", field)

    async def redis_away(request: Request, error: Exception) -> Response:
        if isinstance(error, OutOfMemoryError):
            return await ours(request, RedisFull(str(error)))
        return await ours(request, ServiceUnavailable(f"Redis did not answer: {error} — try again"))

    app.add_exception_handler(FailoverError, ours)
    app.add_exception_handler(RedisError, redis_away)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(HTTPException, frameworks)


def _methods(app: FastAPI, request: Request) -> set[str]:
    """The HTTP methods that the app's routes accept at the request's path."""
    here = [
        methods for path, methods in app.openapi()["paths"].items() if compile_path(path)[0].match(request.url.path)
    ]
    return {method.upper() for methods in here for method in methods}


def told_error(
    status: int,
    message: str,
    code: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
    kind: str | None = None,
) -> Response:
    """The response of an error. `kind`: OpenAI's `error.type`. Lone surrogates in the message, which UTF-8 cannot encode, become
    U+FFFD."""
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    message = _SURROGATES.sub("\ufffd", message)
    facts = ErrorFacts(message=message, type=kind, code=code, param=param)
    return JSONResponse({"error": facts.model_dump()}, status, headers=headers)
