"""Why a Redis cannot be used, with the fix, and whether waiting helps."""

from __future__ import annotations

from redis.exceptions import BusyLoadingError, MaxConnectionsError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

# (a part of the error's text in lower case, the fix); the first that fits
_FIXES = (
    (
        "certificate_verify_failed",
        "its certificate is signed by nobody who is known here, as Heroku's: set REDIS_TLS_VERIFY=false",
    ),
    ("[ssl", "the port seems to speak no TLS: use redis:// in place of rediss:// in REDIS_URL"),
    ("without any password configured", "this Redis has no password: remove it from REDIS_URL"),
    ("authentication required", "it needs a password: REDIS_URL=redis://:password@host:6379/0, or user:password"),
    ("invalid username-password", "user or password in REDIS_URL is wrong; write special characters as %40 for @"),
    ("invalid password", "the password in REDIS_URL is wrong; write special characters as %40 for @"),
    ("no permissions", "give this user the permissions of docs/deploy.md (ACL SETUSER), or use another user"),
    ("protected mode", "it answers only its own host: set a password (requirepass), then protected-mode no"),
    ("db index is out of range", "it has no database of that number: end REDIS_URL with /0"),
    ("protocol error", "the port is not a Redis: correct host and port in REDIS_URL"),
    ("unknown command", "a proxy in front does not know this command: point REDIS_URL at Redis itself"),
    (
        "max number of clients",
        "close other clients, or raise maxclients; docs/deploy.md has the connections of each process",
    ),
    (
        "misconf",
        "it cannot write to its own disk, so it refuses every write: free space there, or use a larger disk (runbook.md: "
        "redis_unwritable); its own log names the cause",
    ),
    ("loading the dataset", "it reads its data from disk after a start: wait"),
    ("not a primary", "wait for the failover to end, or point REDIS_URL at the primary"),
    (
        "wrongtype",
        "another tool wrote the key: look at it with `redis-cli TYPE KEY`, then rename it with `redis-cli RENAME KEY KEY.old`",
    ),
    ("name or service not known", "the host in REDIS_URL is unknown here: correct it"),
)
_BROKEN = ("connection reset", "broken pipe", "closed by server")  # what the other side's refusal looks like
_PASSING = (
    *_BROKEN,
    "max number of clients",
    "loading the dataset",
    "misconf",
    "not a primary",
    "connection refused",
    "no such file",
    "timeout",
)


def fix_of(error: RedisError, url: str) -> str:
    """What to do about an error of the first command."""
    text = str(error).lower()
    tls = url.startswith("rediss://")
    if tls and isinstance(error, RedisTimeoutError):
        return "start it, or correct REDIS_URL; if the port speaks no TLS, use redis:// in place of rediss://"
    if not tls and any(part in text for part in _BROKEN):
        return "it closed the connection: if the port speaks TLS, use rediss:// in REDIS_URL; its log may say more"
    return next((fix for part, fix in _FIXES if part in text), "start it, or correct REDIS_URL")


def fix_of_refusal(text: str) -> str:
    """What to do about an error with this text, with which Redis refuses what it is asked again and again."""
    return next((fix for part, fix in _FIXES if part in text.lower()), "the worker's log and the Redis's may say more")


def may_pass(error: RedisError) -> bool:
    """Whether the error may end without a person: Redis starts, loads its data, fails over, or is short of connections."""
    text = str(error).lower()
    known = isinstance(error, BusyLoadingError | RedisTimeoutError | MaxConnectionsError)
    return known or any(part in text for part in _PASSING)
