"""The tokens of the web process beside FAILOVER_API_TOKEN: each has a name, a role, and for the role `tenant` a tenant.

A token is shown once, when it is created. Only its SHA-256 is kept: in Redis (`failover tokens create`) or in
policies/tokens.yaml. A token has 256 random bits, so a plain hash of it cannot be guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

import redis
import redis.asyncio
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from producer import keyspace
from producer.environment import Environment, find_configuration
from producer.errors import ServiceUnavailable, UsageError
from producer.job import Name
from producer.policy import read_yaml
from producer.scripts import Script, ask, ask_async

TOKEN = Script.load(Path(__file__).parent / "lua", "token")
VERSION = ""  # the field of failover:tokens that changes with every change
MOST_TOKENS = 10_000
REFRESH_SECONDS = 2.0  # a revoked token is refused after this at the latest
PREFIX = "fow_"  # so that scanners for leaked secrets can know it
FILE = "tokens.yaml"


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError("use letters, digits, and . _ - inside, at most 64 characters")
    return value


def _hash(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(
            "is not the SHA-256 of a token; `failover tokens create NAME --for-file` prints the line, and the token itself "
            "never stands here"
        )
    return value


TokenName = Annotated[str, AfterValidator(_name)]
Sha256 = Annotated[str, AfterValidator(_hash)]


class Role(StrEnum):
    """What a token may do. FAILOVER_API_TOKEN is an operator's."""

    OPERATOR = "operator"  # everything
    REVIEWER = "reviewer"  # reads, answers by hand, resumes
    VIEWER = "viewer"  # reads
    TENANT = "tenant"  # submits, reads and cancels the jobs of its own tenant


class Grant(BaseModel):
    """A token without its name and its secret, as policies/tokens.yaml has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    tenant: Name | None = None
    sha256: Sha256

    @model_validator(mode="after")
    def _tenant_belongs_to_its_role(self) -> Grant:
        if (self.role is Role.TENANT) != (self.tenant is not None):
            raise ValueError("the role `tenant` needs a tenant, and no other role has one")
        return self


class Token(Grant):
    """`by`: who created it; `at`: when, in Unix seconds. Both are unknown for a token of the file."""

    name: TokenName
    by: str | None = None
    at: int | None = None


class TokensFile(BaseModel):
    """policies/tokens.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    tokens: dict[TokenName, Grant] = Field(default_factory=dict)


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    return sha256(secret.encode(errors="surrogateescape")).hexdigest()


def load_tokens(environment: Environment) -> tuple[Token, ...]:
    """The tokens of policies/tokens.yaml, which need not exist. Raises ConfigurationError."""
    path = find_configuration("policies", "POLICIES_DIR", environment) / FILE
    if not path.exists():
        return ()
    return tuple(Token(name=name, **grant.model_dump()) for name, grant in read_yaml(path, TokensFile).tokens.items())


def create(client: redis.Redis, token: Token) -> None:
    """Keep a token in Redis. Raises UsageError if its name is taken, or if there are MOST_TOKENS."""
    outcome = _change(client, token.name, token.model_dump_json(), token.by or "")
    if outcome == b"taken":
        raise UsageError(f"there is a token {token.name} already: choose another name, or revoke it first")
    if outcome == b"full":
        raise UsageError(f"there are {MOST_TOKENS:,} tokens already: revoke those that nobody uses")


def revoke(client: redis.Redis, name: str, *, who: str) -> None:
    """Remove a token from Redis. Raises UsageError if there is none of this name."""
    if _change(client, name, "", who) == b"unknown":
        raise UsageError(f"there is no token {name} in Redis: `failover tokens list` shows all")


def listed(client: redis.Redis) -> list[Token]:
    """The tokens in Redis, by name."""
    (found,) = ask(client, [("HGETALL", keyspace.TOKENS)])
    return sorted(_read(found), key=lambda token: token.name)


def _change(client: redis.Redis, name: str, token: str, who: str) -> bytes:
    keys, args = [keyspace.TOKENS, keyspace.AUDIT], (name, token, who, MOST_TOKENS, uuid4().hex)
    (outcome,) = ask(client, [TOKEN.call(keys, args)])
    return bytes(outcome)


def _read(found: dict[bytes, bytes]) -> Iterator[Token]:
    """The tokens of failover:tokens. An entry that cannot be read opens no door, so it is left out."""
    for name, raw in found.items():
        if name != VERSION.encode():
            with contextlib.suppress(ValidationError):
                yield Token.model_validate_json(raw)


class Tokens:
    """Finds a request's token among those of the file and those of Redis, which it reads at most every REFRESH_SECONDS."""

    def __init__(
        self, client: redis.asyncio.Redis, of_file: Iterable[Token], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._clock = client, clock
        self._of_file = {token.sha256: token for token in of_file}
        self._of_redis: dict[str, Token] = {}
        self._version: bytes | None = None
        self._read_at, self._away, self._reading = -REFRESH_SECONDS, False, asyncio.Lock()

    async def find(self, secret: str) -> Token | None:
        """The token with this secret; None if there is none.

        It is looked up by its hash, so the time that this takes says nothing about the secrets. Raises RedisError and
        ServiceUnavailable while Redis cannot say: then only the tokens of the file are known.
        """
        return await self.find_hash(hash_of(secret))

    async def find_hash(self, digest: str) -> Token | None:
        """As `find`, for a secret with this hash."""
        if known := self._of_file.get(digest):
            return known
        async with self._reading:
            if self._clock() - self._read_at >= REFRESH_SECONDS:
                await self._refresh()
        if self._away:
            raise ServiceUnavailable("Redis did not answer, so the token cannot be checked — try again")
        return self._of_redis.get(digest)

    async def _refresh(self) -> None:
        self._read_at, self._away = self._clock(), True
        (version,) = await ask_async(self._client, [("HGET", keyspace.TOKENS, VERSION)])
        if version != self._version:
            (found,) = await ask_async(self._client, [("HGETALL", keyspace.TOKENS)])
            self._of_redis = {token.sha256: token for token in _read(found)}
            self._version = found.get(VERSION.encode())
        self._away = False
