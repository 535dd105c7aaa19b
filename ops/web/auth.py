"""Authentication: who sends a request, and whether its role is admitted to the route (access.py).

A request has FAILOVER_API_TOKEN, which is the operator's, or a further token (worker/control/tokens.py). The budget webhook
also accepts a signature or a verified Google token. Without any secret the process listens on loopback only, and accepts
requests of this machine, but not of web pages. The pages for people know their reader by a cookie (sessions.py).
"""

from __future__ import annotations

import asyncio
import hmac

import jwt
from fastapi import Request
from standardwebhooks.webhooks import WebhookVerificationError

from ops.web.access import ACCESS, OPERATORS, PAGES, WITHOUT_TOKEN, Roles
from ops.web.sessions import Sessions, read_form, require_local, require_own_form
from ops.web.settings import GoogleSender, Settings
from producer.errors import BadRequest, Forbidden, ServiceUnavailable, Unauthorized
from producer.intake import HTTP, Caller
from worker.control.tokens import Role, Tokens

GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
_WHO = "send `Authorization: Bearer` with FAILOVER_API_TOKEN, or a token of `failover tokens create`"
_OPERATOR = (Role.OPERATOR, Caller())


class Guard:
    """Checks requests. Raises Unauthorized, Forbidden; RedisError and ServiceUnavailable while a token cannot be checked."""

    def __init__(self, settings: Settings, tokens: Tokens, sessions: Sessions) -> None:
        self._settings, self._tokens, self._sessions = settings, tokens, sessions
        google = settings.google
        self._certs = jwt.PyJWKClient(google.certs_url, cache_keys=True, timeout=5) if google else None

    async def admit(self, request: Request) -> None:
        """Let the request through if its route admits its role. A dependency of every route."""
        route = (request.method, request.scope["route"].path)
        if route in PAGES:
            await self._admit_visitor(request, PAGES[route])
        elif (roles := ACCESS.get(route, frozenset())) is not WITHOUT_TOKEN:
            await self._require(request, roles)

    async def _admit_visitor(self, request: Request, roles: Roles | None) -> None:
        """Put who reads a page, and the form that was sent, into the request's state."""
        form = request.state.form = await read_form(request) if request.method == "POST" else None
        if roles is WITHOUT_TOKEN:
            return
        visitor = request.state.visitor = await self._sessions.visitor(request)
        request.state.caller = Caller(visitor.who, visitor.tenant)
        if form is not None:
            require_own_form(request, visitor, form)
        _require_role(visitor.role, roles)

    async def _require(self, request: Request, roles: Roles) -> None:
        role, request.state.caller = await self._caller(request)
        _require_role(role, roles)

    async def _caller(self, request: Request) -> tuple[Role, Caller]:
        """The role of the request's token and its caller. A local request is an operator's if no secret is configured."""
        settings, secret = self._settings, _bearer(request)
        if settings.token is not None and _same(secret, settings.token):
            return _OPERATOR
        if secret and (token := await self._tokens.find(secret)):
            return token.role, Caller(f"{token.name}@{HTTP}", token.tenant)
        if not settings.any_secret:
            require_local(request)
            return _OPERATOR
        if not settings.any_token:
            raise Unauthorized("FAILOVER_API_TOKEN is not set on the server, so nobody may use this route — set it")
        raise Unauthorized(f"wrong token — {_WHO}" if secret else f"no token — {_WHO}")

    async def budget_sender(self, request: Request, raw: bytes) -> None:
        """Require an operator's token, a Standard Webhooks signature of the body `raw`, or Google's token.

        Raises Unauthorized, Forbidden, BadRequest, ServiceUnavailable.
        """
        settings, token = self._settings, _bearer(request)
        if settings.token is not None and _same(token, settings.token):
            return
        if settings.signer is not None and "webhook-signature" in request.headers:
            try:
                settings.signer.verify(raw, dict(request.headers))
            except RecursionError:
                raise BadRequest("the body is nested too deep") from None
            except (WebhookVerificationError, ValueError) as error:
                raise Unauthorized(f"the webhook's signature is not valid: {error}") from None
        elif settings.google is not None and token.count(".") == 2:
            await asyncio.to_thread(self._verify_google, token, settings.google)
        else:
            await self._require(request, OPERATORS)

    def _verify_google(self, token: str, google: GoogleSender) -> None:
        assert self._certs is not None  # noqa: S101 - made with settings.google
        try:
            key = self._certs.get_signing_key_from_jwt(token)
            claims = jwt.decode(token, key, ["RS256"], audience=google.audience, leeway=30)
        except (jwt.PyJWKClientConnectionError, ValueError):
            raise ServiceUnavailable("Google's certificates cannot be read now — send it again") from None
        except jwt.PyJWTError as error:
            raise Unauthorized(f"Google's token is not valid: {error}") from None
        if claims.get("iss") not in GOOGLE_ISSUERS or claims.get("email_verified") is not True:
            raise Unauthorized("the token is not from Google for a service account")
        if not _same(str(claims.get("email")), google.email):
            raise Unauthorized("the token belongs to another service account than BUDGET_GOOGLE_EMAIL")


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())


def _require_role(role: Role, roles: Roles) -> None:
    if role not in roles:
        admitted = ", ".join(sorted(roles)) or "nobody: the route is missing in ops/web/access.py"
        raise Forbidden(f"the role {role} may not do this; it is for: {admitted}")
