"""Travel mode: serves the page, and asks `failover serve` with a token that no browser sees.

    TRAVEL_CODES=acme=a-long-access-code FAILOVER_API_TOKEN=... python server.py

Reads FAILOVER_API_TOKEN, FAILOVER_URL (http://localhost:8000/v1), TRAVEL_CODES (`tenant=access code`, with commas between),
TRAVEL_POLICY (policy.json beside this file), HOST (127.0.0.1) and PORT (8088).
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

HERE = Path(__file__).parent
FILES = ("app.js", "device.js", "icon.svg", "index.html", "manifest.webmanifest", "sending.js", "style.css", "sw.js")
TYPES = {".webmanifest": "application/manifest+json", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; worker-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PASSED = ("content-type", "retry-after", "x-failover-job-id", "x-should-retry")
COOKIE = "travel-mode"
SIGNED_IN_SECONDS = 30 * 86400
WAIT_SECONDS = 20  # for an answer, in one request; the page asks again with the same key
SHORTEST_CODE = 16
LARGEST_BODY = 64 * 1024


class Feature(BaseModel):
    """What a question can be about. `model`: a job type. Without `keep_hours` its answers are private: no device keeps them."""

    model_config = ConfigDict(extra="forbid")

    label: str
    model: str = "default"
    keep_hours: Annotated[float, Field(gt=0, le=720)] | None = None


class Policy(BaseModel):
    model_config = ConfigDict(extra="forbid")

    features: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], Feature] = Field(min_length=1)


class Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class Question(BaseModel):
    """The body of a question. Every other parameter of OpenAI's is the business of this server, and is ignored."""

    messages: list[Message] = Field(min_length=1)


@dataclass(frozen=True)
class Settings:
    """`codes`: the access code of each tenant."""

    url: str
    token: str
    codes: Mapping[str, str]
    policy: Policy
    host: str
    port: int


class WrongSetting(Exception):
    """A setting that the server cannot start with; the message says how to fix it."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Raises WrongSetting."""
    token = environment.get("FAILOVER_API_TOKEN", "").strip()
    if not token:
        make = "`failover tokens create NAME --role tenant --tenant TENANT` makes one"
        raise WrongSetting(f"FAILOVER_API_TOKEN is not set: {make}")
    url = environment.get("FAILOVER_URL", "http://localhost:8000/v1").rstrip("/")
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        raise WrongSetting("FAILOVER_URL should be like http://localhost:8000/v1")
    port = environment.get("PORT", "8088")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise WrongSetting("PORT should be a number up to 65535")
    codes = read_codes(environment.get("TRAVEL_CODES", ""))
    policy = read_policy(Path(environment.get("TRAVEL_POLICY") or HERE / "policy.json"))
    return Settings(url, token, codes, policy, environment.get("HOST", "127.0.0.1"), int(port))


def read_codes(text: str) -> dict[str, str]:
    """The access code of each tenant. Raises WrongSetting, which shows no code."""
    codes: dict[str, str] = {}
    for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        tenant, _, code = entry.partition("=")
        if not re.fullmatch(r"[\w.:-]{1,64}", tenant, re.ASCII) or len(code) < SHORTEST_CODE:
            raise WrongSetting(
                f"TRAVEL_CODES: entry {number} should be tenant=code, with a code of {SHORTEST_CODE} or more characters"
            )
        if tenant in codes or code in codes.values():
            raise WrongSetting(f"TRAVEL_CODES: entry {number} has the tenant or the code of another entry")
        codes[tenant] = code
    if not codes:
        raise WrongSetting("TRAVEL_CODES is not set: TRAVEL_CODES=acme=a-long-access-code lets the tenant acme sign in")
    return codes


def read_policy(path: Path) -> Policy:
    """Raises WrongSetting."""
    try:
        return Policy.model_validate_json(path.read_bytes())
    except OSError as error:
        raise WrongSetting(f"TRAVEL_POLICY: {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise WrongSetting(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


class Refused(Exception):
    """A request that is not answered; the page reads the code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


class Sessions:
    """Signed cookies. A new access code, or a new token of the server, ends the sessions of the old one."""

    def __init__(self, settings: Settings) -> None:
        self._token, self._codes = settings.token, settings.codes

    def tenant_of_code(self, code: str) -> str:
        """Raises Refused."""
        for tenant, own in self._codes.items():
            if hmac.compare_digest(own.encode(), code.encode("utf-8", "replace")):
                return tenant
        raise Refused(401, "wrong_code", "this access code is not known")

    def cookie(self, tenant: str) -> str:
        signed = f"{tenant}.{int(time.time()) + SIGNED_IN_SECONDS}"
        return f"{signed}.{self._signature(tenant, signed)}"

    def tenant(self, request: Request) -> str:
        """Who is signed in. Raises Refused."""
        signed, _, signature = request.cookies.get(COOKIE, "").rpartition(".")
        tenant, _, until = signed.rpartition(".")
        known = tenant in self._codes and hmac.compare_digest(
            self._signature(tenant, signed).encode(), signature.encode()
        )
        if not known or int(until) < time.time():
            raise Refused(401, "signed_out", "sign in first")
        return tenant

    def _signature(self, tenant: str, signed: str) -> str:
        key = f"{self._token}\0{self._codes[tenant]}"
        return hmac.new(key.encode(), signed.encode(), "sha256").hexdigest()


class Server:
    """What each address answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._sessions = settings, Sessions(settings)
        self._queue = httpx.AsyncClient(timeout=httpx.Timeout(WAIT_SECONDS + 10, connect=5))

    def app(self) -> FastAPI:
        app = FastAPI(lifespan=self._lifespan, openapi_url=None)
        app.middleware("http")(with_headers)
        app.exception_handler(Refused)(as_error)
        app.get("/session")(self.session)
        app.post("/sign-in")(self.sign_in)
        app.post("/sign-out")(self.sign_out)
        app.post("/v1/chat/completions")(self.ask)
        app.get("/{name:path}")(self.file)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with self._queue:
            yield

    async def session(self, request: Request) -> Response:
        """Who is signed in, and what one can ask about. Raises Refused."""
        return self._session(self._sessions.tenant(request))

    async def sign_in(self, request: Request) -> Response:
        """The code is in a header of our own: no page of another site can send that. Raises Refused."""
        tenant = self._sessions.tenant_of_code(unquote(request.headers.get("x-access-code", "")))
        response = self._session(tenant)
        secure = request.url.scheme == "https"
        response.set_cookie(
            COOKIE, self._sessions.cookie(tenant), SIGNED_IN_SECONDS, secure=secure, httponly=True, samesite="strict"
        )
        return response

    async def sign_out(self) -> Response:
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    async def ask(self, request: Request) -> Response:
        """The answer of the queue, for the tenant who is signed in. Raises Refused."""
        tenant = self._sessions.tenant(request)
        if request.headers.get("x-failover-tenant") != tenant:
            raise Refused(403, "other_tenant", f"this browser is signed in as {tenant} now")
        name = request.headers.get("x-failover-feature", "")
        feature = self._settings.policy.features.get(name)
        if feature is None:
            raise Refused(400, "unknown_feature", "the policy of this server does not list this feature")
        key = request.headers.get("idempotency-key", "")
        if not re.fullmatch(r"[!-~]{1,255}", key):
            raise Refused(
                400, "no_key", "a question needs an Idempotency-Key of ASCII characters, so that it is paid once"
            )
        headers = {"Idempotency-Key": key, "x-failover-tenant": tenant, "x-failover-feature": name}
        answer = await self._answer(feature, await question_of(request), headers)
        passed = {header: answer.headers[header] for header in PASSED if header in answer.headers}
        if answer.status_code == 200 and feature.keep_hours is not None:
            passed["Cache-Control"] = f"private, max-age={int(feature.keep_hours * 3600)}"
        return Response(answer.content, answer.status_code, passed)

    async def file(self, name: str) -> Response:
        name = name or "index.html"
        if name not in FILES:
            raise Refused(404, "not_found", "there is no such page")
        return FileResponse(HERE / name, media_type=TYPES.get(Path(name).suffix), headers={"Cache-Control": "no-cache"})

    def _session(self, tenant: str) -> Response:
        features = [
            {"name": name, "label": feature.label, "private": feature.keep_hours is None}
            for name, feature in self._settings.policy.features.items()
        ]
        return JSONResponse({"tenant": tenant, "features": features})

    async def _answer(self, feature: Feature, question: Question, headers: dict[str, str]) -> httpx.Response:
        prefer = f"respond-async, wait={WAIT_SECONDS}"
        headers = {**headers, "Authorization": f"Bearer {self._settings.token}", "Prefer": prefer}
        body = {"model": feature.model, **question.model_dump()}
        try:
            answer = await self._queue.post(f"{self._settings.url}/chat/completions", json=body, headers=headers)
        except httpx.TransportError:
            message = "the queue does not answer; the same question may be sent again"
            raise Refused(502, "unreachable", message) from None
        if answer.status_code in (
            401,
            403,
            404,
            405,
        ):  # nothing that the person did: the question waits until it is mended
            print(
                f"travel-mode: {answer.status_code} from {self._settings.url}: see FAILOVER_URL, FAILOVER_API_TOKEN",
                flush=True,
            )
            raise Refused(
                502, "misconfigured", "the server of this page has a wrong setting; the question may be sent again"
            )
        return answer


async def question_of(request: Request) -> Question:
    """Raises Refused."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise Refused(413, "too_large", f"a question has up to {LARGEST_BODY} bytes")
    try:
        return Question.model_validate_json(body)
    except ValidationError:
        raise Refused(400, "invalid_body", "the body should be JSON with a list of messages") from None


async def with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")  # whatever no one has allowed to be kept
    return response


async def as_error(_: Request, refused: Refused) -> Response:
    """In OpenAI's form."""
    return JSONResponse({"error": {"code": refused.code, "message": refused.message}}, refused.status)


def main() -> None:
    try:
        settings = read_settings(os.environ)
    except WrongSetting as error:
        print(f"travel-mode: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"travel-mode: http://{settings.host}:{settings.port}", flush=True)
    uvicorn.run(Server(settings).app(), host=settings.host, port=settings.port, log_level="warning")


if __name__ == "__main__":
    main()
