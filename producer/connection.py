"""Redis clients from REDIS_URL. Every wait has a limit, redis-py makes no retries, and connections follow the primary.

By default redis-py resends a command up to ten times after a lost reply, which could apply it twice. Here only our code
resends, and only what is idempotent (our scripts).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from producer.environment import Environment, flag
from producer.errors import ServiceUnavailable
from producer.redis_server.errors import fix_of, may_pass
from producer.redis_server.primary import following
from producer.redis_server.round_trip import Connections
from producer.redis_server.silence import patient
from producer.redis_server.url import unreadable, with_known_options

CONNECT_TIMEOUT_SECONDS = 2.0
REPLY_TIMEOUT_SECONDS = 5.0
WAIT_FOR_CONNECTION_SECONDS = 10.0  # for a connection that other callers use
TELL_SECONDS, TRY_AGAIN_SECONDS = 10.0, 0.5  # while a start waits for Redis

OLDEST_VERSION = 7
REPLICA = "is a replica and cannot accept jobs: point REDIS_URL at the primary"


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
    options = _options(connect_timeout, reply_timeout, Retry(NoBackoff(), 0))
    pool: redis.ConnectionPool
    try:
        if max_connections is None:
            pool = redis.ConnectionPool.from_url(with_known_options(url), **options)
        else:
            pool = redis.BlockingConnectionPool.from_url(
                with_known_options(url), max_connections=max_connections, timeout=WAIT_FOR_CONNECTION_SECONDS, **options
            )
        pool.connection_class = following(patient(pool.connection_class, asyncio=False), asyncio=False)
        pool.make_connection()  # raises now if the URL's options are wrong
    except (ValueError, TypeError, AttributeError):
        raise unreadable() from None
    return redis.Redis.from_pool(pool)


def connect_async(
    url: str,
    *,
    max_connections: int = 2,
    connect_timeout: float = CONNECT_TIMEOUT_SECONDS,
    reply_timeout: float | None = REPLY_TIMEOUT_SECONDS,
) -> redis.asyncio.Redis:
    """An asyncio client with at most `max_connections` connections; further callers wait for one. Raises
    ConfigurationError."""
    try:
        pool = Connections.from_url(
            with_known_options(url),
            max_connections=max_connections,
            timeout=WAIT_FOR_CONNECTION_SECONDS,
            **_options(connect_timeout, reply_timeout, AsyncRetry(NoBackoff(), 0)),
        )
    except (ValueError, TypeError, AttributeError):
        raise unreadable() from None
    pool.connection_class = following(patient(pool.connection_class, asyncio=True), asyncio=True)
    return redis.asyncio.Redis.from_pool(pool)


def another(client: redis.asyncio.Redis, **changed: Any) -> redis.asyncio.Redis:
    """A client with the same settings, but for those that are `changed`, and connections of its own, as needed on another
    event loop."""
    pool = client.connection_pool
    options = {**pool.connection_kwargs, "max_connections": pool.max_connections, **changed}
    if isinstance(pool, redis.asyncio.BlockingConnectionPool):
        options["timeout"] = pool.timeout
    return redis.asyncio.Redis.from_pool(type(pool)(connection_class=pool.connection_class, **options))


def _options(connect_timeout: float, reply_timeout: float | None, retry: Retry | AsyncRetry) -> dict[str, Any]:
    """Of every connection. RESP2, because the replies are read so, and because some proxies do not know HELLO."""
    return {
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": reply_timeout,
        "retry": retry,
        "health_check_interval": 30,
        "protocol": 2,
    }


def check_reachable(client: redis.Redis, url: str) -> None:
    """Raises ServiceUnavailable, with the fix, if Redis does not answer."""
    try:
        client.ping()
    except RedisError as error:
        raise _unusable(error, url) from error


def wait_until_reachable(client: redis.Redis, url: str, *, seconds: float, tell: Callable[[str], None]) -> None:
    """As `check_reachable`, but wait up to `seconds` while the reason may pass: platforms start Redis and its clients
    together, and move the primary. `tell` gets the reason at once, and every TELL_SECONDS."""
    give_up, tell_at = time.monotonic() + seconds, 0.0
    while (reason := _passing_reason(client, url)) and time.monotonic() < give_up:
        if time.monotonic() >= tell_at:
            tell(reason)
            tell_at = time.monotonic() + TELL_SECONDS
        client.connection_pool.disconnect()  # another server may answer at this address now
        time.sleep(TRY_AGAIN_SECONDS)
    check_reachable(client, url)


def _passing_reason(client: redis.Redis, url: str) -> str:
    """Why Redis cannot be used at the moment; "" if it can, or if waiting does not help."""
    try:
        client.ping()
        is_replica = client.info("replication").get("role") == "slave"
    except RedisError as error:
        return str(_unusable(error, url)) if may_pass(error) else ""
    return f"Redis at {without_secret(url)} {REPLICA}" if is_replica else ""


def _unusable(error: RedisError, url: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"Redis at {without_secret(url)} cannot be used: {error} — {fix_of(error, url)}")


def check_safe(client: redis.Redis) -> list[str]:
    """The reasons why this Redis can lose jobs, each with its fix; [] if there are none. See docs/guarantees.md."""
    info = client.info()
    found = []
    version = str(info.get("redis_version", "0"))
    if int(version.partition(".")[0]) < OLDEST_VERSION:
        found.append(f"Redis {version} is too old: the scripts need Redis {OLDEST_VERSION} or Valkey")
    if info.get("cluster_enabled"):
        found.append(
            "it runs in cluster mode, in which a script cannot change the keys of two slots: use a Redis without cluster "
            "mode, with a replica and Sentinel or your provider's failover"
        )
    if info.get("role") == "slave":
        found.append(f"it {REPLICA}")
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
