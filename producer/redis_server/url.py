"""The options of REDIS_URL. Every option that other tools write into it is used, ignored, or refused with a sentence: redis-py
itself reads `/jobs` as database 0 and `decode_responses=False` as true, and fails on `ssl_cert_reqs=CERT_NONE`."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

from producer.errors import ConfigurationError, Problem

SCHEMES = ("redis", "rediss", "unix")
USED = ("db", "username", "password", "client_name", "socket_keepalive")
USED_BY_TLS = (
    *("ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password"),
    *("ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
)
# how a client of another app reads replies; it says nothing about the server
IGNORED = ("decode_responses", "encoding", "encoding_errors", "protocol", "legacy_responses")
# each would undo a limit that keeps calls short, or a resend that counts once
OWN = (
    *("socket_timeout", "socket_connect_timeout", "socket_read_size", "timeout", "max_connections"),
    *("retry_on_timeout", "retry_on_error", "health_check_interval"),
)
CERT_REQS = ("none", "optional", "required")


def with_known_options(url: str) -> str:
    """The URL as redis-py has to get it. Raises ConfigurationError, which names the option and never its value."""
    fix = f"it starts with one of {', '.join(s + '://' for s in SCHEMES)}, as in redis://:password@host:6379/0"
    if url.partition("://")[0] not in SCHEMES:
        raise _problem("", "is not a Redis URL", fix)
    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and (not parts.hostname or parts.port == 0 or "@" in parts.path + parts.fragment):
            raise ValueError  # noqa: TRY301 - the same sentence for every way to be wrong
        pairs = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except (ValueError, TypeError, AttributeError):
        raise unreadable() from None
    database = parts.path.strip("/") if parts.scheme != "unix" else ""
    if not _is_number(pairs.get("db", database or "0")):
        raise _problem("db", "is not a number", "Redis numbers its databases: end the URL with /0")
    options = {name: text for name, value in pairs.items() if (text := _option(name, value, parts.scheme)) is not None}
    base = url.partition("?")[0]
    return f"{base}?{urlencode(options)}" if options else base


def unreadable() -> ConfigurationError:
    """The error for a URL that cannot be parsed; without redis-py's text, which may contain the password."""
    return _problem("", "cannot be read", "in a password, write %2F for /, %23 for #, %3F for ?, %40 for @")


def _option(name: str, value: str, scheme: str) -> str | None:
    """The option's value for redis-py; None to leave it out."""
    if name in IGNORED:
        return None
    if name in OWN:
        raise _problem(name, "cannot be set here", "remove it: failover-worker has limits of its own for every call")
    if name not in (*USED, *USED_BY_TLS):
        raise _problem(name, "is not an option of REDIS_URL", f"remove it; known: {', '.join((*USED, *USED_BY_TLS))}")
    if name in USED_BY_TLS and scheme != "rediss":
        raise _problem(name, "needs TLS", "start the URL with rediss://, or remove the option")
    if name == "ssl_cert_reqs":
        value = value.lower().removeprefix("cert_")
        if value not in CERT_REQS:
            raise _problem(name, "has an unknown value", f"one of {', '.join(CERT_REQS)}")
    if name == "ssl_min_version" and not _is_number(value):
        raise _problem(name, "is not a number", "remove it: TLS 1.2 is the oldest version anyway")
    return value


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _problem(option: str, what: str, fix: str) -> ConfigurationError:
    return ConfigurationError([Problem("REDIS_URL", option, what, fix)])
