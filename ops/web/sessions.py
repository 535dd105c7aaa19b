"""Sign-in of people to the pages: a signed cookie that names a token, and what a form must carry.

The cookie holds no secret of its token, only the token's hash, so a revoked token ends its sessions. It is signed with a
random key that all web processes share through Redis. A form carries the session's `csrf`, which no other site can read.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import redis.asyncio
from fastapi import Request

from ops.web.settings import Settings
from producer import keyspace
from producer.errors import BadRequest, BodyTooLarge, Forbidden, Unauthorized
from producer.scripts import ask_async
from worker.control.tokens import Role, Tokens, hash_of
from worker.humanize import one_line

COOKIE = "failover_session"
SESSION_SECONDS = 12 * 3600  # a night shift
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MOST_FORM_BYTES = 1_000_000  # an answer that a person hands in
MOST_FIELDS = 1_000
LONGEST_NAME = 40
_LOCAL = "this machine"  # the token of a session while no secret is configured


class NotSignedIn(Unauthorized):
    """No session, or one that is over: the browser is sent to the sign-in page."""


@dataclass(frozen=True)
class Visitor:
    """A person who is signed in. `csrf`: what each of its forms must carry."""

    name: str
    role: Role
    tenant: str | None
    csrf: str

    @property
    def who(self) -> str:
        """The name in the audit."""
        return f"{self.name}@web"


class Form:
    """The fields of a form that was sent."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def one(self, name: str) -> str:
        """The field's only value, without blanks around it; "" if it is missing."""
        return self._fields.get(name, [""])[-1].strip()

    def all(self, name: str) -> list[str]:
        """Every value of a field, such as those of check boxes."""
        return list(self._fields.get(name, []))


async def read_form(request: Request) -> Form:
    """The urlencoded body. Raises BodyTooLarge, BadRequest."""
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > MOST_FORM_BYTES:
            raise BodyTooLarge(MOST_FORM_BYTES)
    try:
        return Form(parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        raise BadRequest("the form cannot be read: send it urlencoded, as UTF-8") from None


def require_local(request: Request) -> None:
    """Refuse web pages in a browser on this machine: neither another host name nor another origin may call."""
    if re.sub(r":\d+$", "", request.headers.get("host", "")) not in LOOPBACK or not same_origin(request):
        raise Unauthorized("without FAILOVER_API_TOKEN only this machine may call, by the name localhost")


def same_origin(request: Request) -> bool:
    """Whether the request comes from our own pages, or from no page."""
    origin = request.headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")
    except ValueError:
        return False


class Sessions:
    """Begins and reads sessions. Both raise RedisError and ServiceUnavailable while a token cannot be checked."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings, tokens: Tokens) -> None:
        self._client, self._settings, self._tokens = client, settings, tokens
        self._key: bytes | None = None

    async def begin(self, request: Request, secret: str, name: str) -> str:
        """The cookie of a new session. `name`: who the person is, where the token does not say it. Raises Unauthorized."""
        if not self._settings.any_secret:
            require_local(request)
            subject = _LOCAL
        elif await self._holder(subject := hash_of(secret)) is None:
            raise Unauthorized("this token is not known, or was revoked")
        claims = {"sub": subject, "name": one_line(name, LONGEST_NAME), "jti": secrets.token_urlsafe(16)}
        return jwt.encode({**claims, "exp": int(time.time()) + SESSION_SECONDS}, await self._signing_key(), "HS256")

    async def visitor(self, request: Request) -> Visitor:
        """Who sends the request. Raises NotSignedIn."""
        cookie = request.cookies.get(COOKIE, "")
        key = await self._signing_key()
        try:
            claims: dict[str, Any] = jwt.decode(cookie, key, ["HS256"], options={"require": ["sub", "exp", "jti"]})
        except jwt.PyJWTError:
            raise NotSignedIn("sign in first") from None
        found = await self._holder(claims["sub"])
        if found is None or (claims["sub"] == _LOCAL and self._settings.any_secret):
            raise NotSignedIn("your token was revoked: sign in with another one")
        if claims["sub"] == _LOCAL:
            require_local(request)
        name, role, tenant = found
        return Visitor(name or claims.get("name") or str(role), role, tenant, _csrf(key, claims["jti"]))

    async def _holder(self, digest: str) -> tuple[str, Role, str | None] | None:
        """(name, role, tenant) of the token with this hash; the operator's own token has no name."""
        own = self._settings.token
        if digest == _LOCAL or (own is not None and hmac.compare_digest(digest, hash_of(own))):
            return "", Role.OPERATOR, None
        token = await self._tokens.find_hash(digest)
        return (token.name, token.role, token.tenant) if token else None

    async def _signing_key(self) -> bytes:
        if self._key is None:
            fresh = secrets.token_bytes(32)
            commands = [("SET", keyspace.WEB_KEY, fresh, "NX"), ("GET", keyspace.WEB_KEY)]
            self._key = (await ask_async(self._client, commands))[1]
        return bytes(self._key)


def _csrf(key: bytes, session: str) -> str:
    return hmac.new(key, b"csrf:" + session.encode(), sha256).hexdigest()


def require_own_form(request: Request, visitor: Visitor, form: Form) -> None:
    """Refuse a form that another site sent in the person's name. Raises Forbidden."""
    if not same_origin(request) or not hmac.compare_digest(form.one("csrf").encode(), visitor.csrf.encode()):
        raise Forbidden("the form does not belong to your session: go back, reload the page, and send it again")
