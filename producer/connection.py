"""REDIS_URL -> clients, with every wait bounded and every retry owned by us.

redis-py resends a command up to ten times by default after a lost reply; here it resends none. Callers resend what is
idempotent (our scripts), so that nothing is applied twice.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from producer.errors import ConfigurationError, Problem, ServiceUnavailable

CONNECT_TIMEOUT_SECONDS = 2.0
REPLY_TIMEOUT_SECONDS = 5.0
SCHEMES = ("redis", "rediss", "unix")


def connect(
    url: str, *, connect_timeout: float = CONNECT_TIMEOUT_SECONDS, reply_timeout: float = REPLY_TIMEOUT_SECONDS
) -> redis.Redis:
    """A blocking client (redis://, rediss://, unix://). No connection is made yet."""
    _check_url(url)
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=connect_timeout,
        socket_timeout=reply_timeout,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=30,
    )


def connect_async(
    url: str,
    *,
    max_connections: int = 2,
    connect_timeout: float = CONNECT_TIMEOUT_SECONDS,
    reply_timeout: float | None = REPLY_TIMEOUT_SECONDS,
) -> redis.asyncio.Redis:
    """An asyncio client with at most `max_connections` connections; a caller beyond that waits for one."""
    _check_url(url)
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=10,
        socket_connect_timeout=connect_timeout,
        socket_timeout=reply_timeout,
        retry=AsyncRetry(NoBackoff(), 0),
        health_check_interval=30,
    )
    return redis.asyncio.Redis.from_pool(pool)


def check_reachable(client: redis.Redis, url: str) -> None:
    """Raise ServiceUnavailable, with the mend, unless Redis answers."""
    try:
        client.ping()
    except RedisError as error:
        raise ServiceUnavailable(
            f"Redis at {without_secret(url)} cannot be used: {error} — start it, or correct REDIS_URL"
        ) from error


def without_secret(url: str) -> str:
    """The URL as it may be shown: no user, no password, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.path}" if parts.scheme == "unix" else f"{parts.scheme}://{_host(url)}{parts.path}"


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _check_url(url: str) -> None:
    if urlsplit(url).scheme not in SCHEMES:
        raise ConfigurationError(
            [
                Problem(
                    "REDIS_URL",
                    "",
                    "is not a Redis URL",
                    f"it starts with one of {', '.join(s + '://' for s in SCHEMES)}, as in redis://localhost:6379/0",
                )
            ]
        )
