"""What the web process is configured with, all of it checked at start."""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field

from standardwebhooks.webhooks import Webhook

from producer.environment import Environment
from producer.errors import ConfigurationError, Problem
from worker.spend import Guardrail

GOOGLE_CERTS_URL = "https://www.googleapis.com/oauth2/v3/certs"


@dataclass(frozen=True)
class GoogleSender:
    """Whose Pub/Sub pushes are believed: the audience and the service account of the push subscription."""

    audience: str
    email: str
    certs_url: str


@dataclass(frozen=True)
class Settings:
    """`token` and `signer` None: not configured."""

    guardrail: Guardrail
    token: str | None = field(repr=False, default=None)
    signer: Webhook | None = field(repr=False, default=None)
    google: GoogleSender | None = None

    @property
    def any_secret(self) -> bool:
        return bool(self.token or self.signer or self.google)

    @classmethod
    def of(cls, environment: Environment) -> Settings:
        """FAILOVER_API_TOKEN, BUDGET_*. Raises ConfigurationError."""
        token = environment.get("FAILOVER_API_TOKEN", "").strip() or None
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise ConfigurationError([Problem("FAILOVER_API_TOKEN", "", "holds a character that no header can carry")])
        return cls(Guardrail.of(environment), token, _signer(environment), _google(environment))


def _signer(environment: Environment) -> Webhook | None:
    secret = environment.get("BUDGET_WEBHOOK_SECRET", "").strip()
    if not secret:
        return None
    try:
        return Webhook(secret)
    except (binascii.Error, ValueError, RuntimeError):
        mend = "make one with `openssl rand -base64 32`; `whsec_` may stand before it"
        raise ConfigurationError([Problem("BUDGET_WEBHOOK_SECRET", "", "is not base64", mend)]) from None


def _google(environment: Environment) -> GoogleSender | None:
    audience, email = (environment.get(f"BUDGET_GOOGLE_{name}", "").strip() for name in ("AUDIENCE", "EMAIL"))
    if not audience and not email:
        return None
    if not audience or not email:
        missing = "BUDGET_GOOGLE_EMAIL" if audience else "BUDGET_GOOGLE_AUDIENCE"
        mend = "the push subscription's audience and service account belong together"
        raise ConfigurationError([Problem(missing, "", "is not set", mend)])
    return GoogleSender(audience, email, environment.get("BUDGET_GOOGLE_CERTS_URL") or GOOGLE_CERTS_URL)
