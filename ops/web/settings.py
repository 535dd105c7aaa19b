"""The settings of the web process, checked at its start."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from standardwebhooks.webhooks import Webhook

from producer.environment import Environment, flag
from producer.errors import ConfigurationError, Problem
from worker.control.tokens import Token, load_tokens
from worker.history.archive import Archive, archive_of
from worker.money.billing_alerts import Guardrail

T = TypeVar("T")

SECRET_BYTES = 24  # Standard Webhooks: between 24 and 64
GOOGLE_CERTS_URL = "https://www.googleapis.com/oauth2/v3/certs"


@dataclass(frozen=True)
class GoogleSender:
    """The accepted sender of Pub/Sub pushes: the audience and the service account of the push subscription."""

    audience: str
    email: str
    certs_url: str


@dataclass(frozen=True)
class Settings:
    """The settings. `token`, `signer` and `google` are None if not configured. `tokens`: those of policies/tokens.yaml.
    `redis_tokens`: whether Redis held a token when the process started. `files`: the place that FILES_URL names."""

    guardrail: Guardrail
    token: str | None = field(repr=False, default=None)
    signer: Webhook | None = field(repr=False, default=None)
    google: GoogleSender | None = None
    unsafe_redis: bool = False
    tokens: tuple[Token, ...] = ()
    redis_tokens: bool = False
    files: Archive | None = None

    @property
    def any_token(self) -> bool:
        return bool(self.token or self.tokens or self.redis_tokens)

    @property
    def any_secret(self) -> bool:
        return bool(self.any_token or self.signer or self.google)

    @classmethod
    def of(cls, environment: Environment) -> Settings:
        """Read FAILOVER_API_TOKEN, BUDGET_* and policies/tokens.yaml. Raises ConfigurationError with all problems."""
        problems: list[Problem] = []

        def checked(read: Callable[[Environment], T]) -> T | None:
            try:
                return read(environment)
            except ConfigurationError as error:
                problems.extend(error.problems)
                return None

        guardrail = checked(Guardrail.of)
        token, signer, google = checked(_token), checked(_signer), checked(_google)
        tokens = checked(load_tokens)
        files = checked(lambda env: archive_of(env, "FILES_URL"))
        unsafe_redis = checked(lambda env: flag(env, "ALLOW_UNSAFE_REDIS", default=False))
        if guardrail is None or problems:
            raise ConfigurationError(problems)
        return cls(guardrail, token, signer, google, bool(unsafe_redis), tokens or (), files=files)


def _token(environment: Environment) -> str | None:
    token = environment.get("FAILOVER_API_TOKEN", "").strip()
    if not (token.isascii() and token.isprintable() and " " not in token):
        fix = "make one with `openssl rand -hex 32`"
        raise ConfigurationError(
            [Problem("FAILOVER_API_TOKEN", "", "has a character that no HTTP header can have", fix)]
        )
    return token or None


def _signer(environment: Environment) -> Webhook | None:
    secret = environment.get("BUDGET_WEBHOOK_SECRET", "").strip()
    if not secret:
        return None
    try:
        key = b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if len(key) < SECRET_BYTES:
        fix = "make one with `openssl rand -base64 32`; it may begin with `whsec_`"
        what = f"is not base64 of {SECRET_BYTES} bytes or more"
        raise ConfigurationError([Problem("BUDGET_WEBHOOK_SECRET", "", what, fix)])
    return Webhook(key)


def _google(environment: Environment) -> GoogleSender | None:
    audience, email = (environment.get(f"BUDGET_GOOGLE_{name}", "").strip() for name in ("AUDIENCE", "EMAIL"))
    if not audience and not email:
        return None
    if not audience or not email:
        missing = "BUDGET_GOOGLE_EMAIL" if audience else "BUDGET_GOOGLE_AUDIENCE"
        fix = "set both: the audience and the service account of the push subscription"
        raise ConfigurationError([Problem(missing, "", "is not set", fix)])
    return GoogleSender(audience, email, environment.get("BUDGET_GOOGLE_CERTS_URL") or GOOGLE_CERTS_URL)
