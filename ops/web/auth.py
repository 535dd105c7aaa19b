"""Authentication: the bearer token for every route; for the budget webhook also a signature or a verified Google token.

Without any secret the process listens on loopback only, and accepts requests of this machine, but not of web pages.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from typing import Annotated
from urllib.parse import urlsplit

import jwt
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from standardwebhooks.webhooks import WebhookVerificationError

from ops.web.settings import GoogleSender, Settings
from producer.errors import BadRequest, ServiceUnavailable, Unauthorized

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
BEARER = HTTPBearer(auto_error=False, description="FAILOVER_API_TOKEN")  # for the OpenAPI document; checked below
Documented = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
_WHO = "send `Authorization: Bearer` with FAILOVER_API_TOKEN"


class Guard:
    """Checks requests. Raises Unauthorized."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        google = settings.google
        self._certs = jwt.PyJWKClient(google.certs_url, cache_keys=True, timeout=5) if google else None

    async def operator(self, request: Request, _: Documented = None) -> None:
        """Require the bearer token, or a local request if no secret is configured."""
        if not self._settings.any_secret:
            _local(request)
        elif self._settings.token is None:
            raise Unauthorized("FAILOVER_API_TOKEN is not set on the server, so nobody may use this route — set it")
        elif not _same(_bearer(request), self._settings.token):
            raise Unauthorized(f"wrong token — {_WHO}" if _bearer(request) else f"no token — {_WHO}")

    async def budget_sender(self, request: Request, raw: bytes) -> None:
        """Require the bearer token, a Standard Webhooks signature of the body `raw`, or Google's token.

        Raises Unauthorized, BadRequest, ServiceUnavailable.
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
            await self.operator(request)

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


def _local(request: Request) -> None:
    """Refuse web pages in a browser on this machine: neither another host name nor another origin may call."""
    named, origin = request.headers.get("host", ""), request.headers.get("origin")
    try:
        ours = re.sub(r":\d+$", "", named) in LOOPBACK and (origin is None or urlsplit(origin).netloc == named)
    except ValueError:
        ours = False
    if not ours:
        raise Unauthorized("without FAILOVER_API_TOKEN only this machine may call, by the name localhost")
