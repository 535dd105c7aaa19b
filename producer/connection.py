"""Redis clients from REDIS_URL. Every wait has a limit, and redis-py makes no retries.

By default redis-py resends a command up to ten times after a lost reply, which could apply it twice. Here only our code
resends, and only what is idempotent (our scripts).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from producer.environment import Environment, flag
from producer.errors import ConfigurationError, Problem, ServiceUnavailable
from producer.silence import ASYNC, BLOCKING

CONNECT_TIMEOUT_SECONDS = 2.0
REPLY_TIMEOUT_SECONDS = 5.0
T = TypeVar("T")

OLDEST_VERSION = 7
SCHEMES = ("redis", "rediss", "unix")


def redis_url(environment: Environment) -> str | None:
    """REDIS_URL, None if it is not set. With REDIS_TLS_VERIFY=false the certificate of a rediss:// server is not verified,
    as needed for self-signed ones (Heroku)."""
    url = environment.get("REDIS_URL") or None
    if url and url.startswith("rediss://") and not flag(environment, "REDIS_TLS_VERIFY", default=True):
        return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=none"
    return url


def connect(
    url: str,
    *,
    connect_timeout: float = CONNECT_TIMEOUT_SECONDS,
    reply_timeout: float = REPLY_TIMEOUT_SECONDS,
    max_connections: int | None = None,
) -> redis.Redis:
    """A blocking client (redis://, rediss://, unix://). It connects with the first command. `max_connections`: of all
    threads together; further threads wait for a connection. Raises ConfigurationError."""

    def client(url: str) -> redis.Redis:
        options = {
            "socket_connect_timeout": connect_timeout,
            "socket_timeout": reply_timeout,
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 30,
        }
        if max_connections is None:
            client = redis.Redis.from_url(url, **options)
        else:
            pool = redis.BlockingConnectionPool.from_url(url, max_connections=max_connections, timeout=10, **options)
            client = redis.Redis.from_pool(pool)
        client.connection_pool.connection_class = BLOCKING[url.partition("://")[0]]
        client.connection_pool.make_connection()  # raises now if the URL's options are wrong
        return client

    return _checked(url, client)


def connect_async(
    url: str,
    *,
    max_connections: int = 2,
    connect_timeout: float = CONNECT_TIMEOUT_SECONDS,
    reply_timeout: float | None = REPLY_TIMEOUT_SECONDS,
) -> redis.asyncio.Redis:
    """An asyncio client with at most `max_connections` connections; further callers wait for one. Raises
    ConfigurationError."""

    def client(url: str) -> redis.asyncio.Redis:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=10,
            socket_connect_timeout=connect_timeout,
            socket_timeout=reply_timeout,
            retry=AsyncRetry(NoBackoff(), 0),
            health_check_interval=30,
        )
        pool.connection_class = ASYNC[url.partition("://")[0]]
        return redis.asyncio.Redis.from_pool(pool)

    return _checked(url, client)


def check_reachable(client: redis.Redis, url: str) -> None:
    """Raises ServiceUnavailable, with the fix, if Redis does not answer."""
    try:
        client.ping()
    except RedisError as error:
        fix = "start it, or correct REDIS_URL"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            fix = "its certificate is signed by nobody who is known here, as Heroku's: set REDIS_TLS_VERIFY=false"
        raise ServiceUnavailable(f"Redis at {without_secret(url)} cannot be used: {error} — {fix}") from error


def check_safe(client: redis.Redis) -> list[str]:
    """The reasons why this Redis can lose jobs, each with its fix; [] if there are none. See docs/guarantees.md."""
    info = client.info()
    found = []
    version = str(info.get("redis_version", "0"))
    if int(version.partition(".")[0]) < OLDEST_VERSION:
        found.append(f"Redis {version} is too old: the scripts need Redis {OLDEST_VERSION} or Valkey")
    if info.get("role") == "slave":
        found.append("it is a replica and cannot accept jobs: point REDIS_URL at the primary")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(f"maxmemory-policy {policy} lets Redis drop jobs when it is full: set it to noeviction")
    if not info.get("aof_enabled") and _snapshots(client) is False:
        found.append("it keeps nothing on disk, so a restart loses every job: set appendonly yes")
    return found


def require_safe(client: redis.Redis, *, allowed: bool) -> list[str]:
    """The reasons of `check_safe`, for the log. Raises ServiceUnavailable if there are any, unless `allowed`."""
    dangers = check_safe(client)
    if dangers and not allowed:
        lines = "".join(f"\n  - {danger}" for danger in dangers)
        raise ServiceUnavailable(
            f"this Redis is not safe to keep jobs in:{lines}\nALLOW_UNSAFE_REDIS=true starts all the same"
        )
    return dangers


def _snapshots(client: redis.Redis) -> bool | None:
    """Whether RDB snapshots are on; None if the Redis provider does not allow CONFIG GET."""
    try:
        return bool(client.config_get("save").get("save"))
    except RedisError:
        return None


def without_secret(url: str) -> str:
    """The URL without user, password and query; `REDIS_URL` in place of a URL that cannot be parsed."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "REDIS_URL"
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    if "@" in parts.path:
        return "REDIS_URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _checked(url: str, connection_of: Callable[[str], T]) -> T:
    """The client. Raises ConfigurationError for a URL that redis-py cannot use, without redis-py's text, which may contain
    the password."""
    fix = f"it starts with one of {', '.join(s + '://' for s in SCHEMES)}, as in redis://:password@host:6379/0"
    if url.partition("://")[0] not in SCHEMES:
        raise ConfigurationError([Problem("REDIS_URL", "", "is not a Redis URL", fix)])
    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and (not parts.hostname or parts.port == 0 or "@" in parts.path + parts.fragment):
            raise ValueError  # noqa: TRY301 - the same sentence for every way to be wrong
        return connection_of(url)
    except (ValueError, TypeError, AttributeError):
        fix = "in a password, write %2F for /, %23 for #, %3F for ?, %40 for @"
        raise ConfigurationError([Problem("REDIS_URL", "", "cannot be read", fix)]) from None
