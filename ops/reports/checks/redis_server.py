"""What the doctor finds in Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import uuid4

import redis
from redis.exceptions import RedisError, ResponseError

from ops.reports.checks.finding import Finding, wrong
from producer import keyspace
from producer.client import DEFAULT_QUEUE
from producer.connection import check_reachable, check_safe, connect, redis_url, without_secret
from producer.environment import Environment, flag
from producer.errors import FailoverError
from producer.scripts import although_full, ask
from worker.control import worker_registry
from worker.control.pause import paused

CLOCK_SECONDS = 2.0  # webhook signatures are valid for minutes, leases for seconds
CONNECTIONS = {"worker": 5, "web": 6}  # the most of one process
SPARE_CONNECTIONS = 10  # enough for one more worker and web process
NEARLY_FULL = 0.8
MESSAGE_SECONDS = 2.0
ACL_FIX = "give this user the keys, channels and commands of docs/deploy.md: ACL SETUSER ... &failover:* &rq:pubsub:*"


def check_redis(environment: Environment, *, deploy: bool) -> Iterator[Finding]:
    """Reachable, safe, with room, and the same clock; who works on it. Changes nothing."""
    try:
        url = redis_url(environment)
        if url is None:
            text = "REDIS_URL is not set: commands use an embedded Valkey, for a laptop only — set it to your Redis"
            yield Finding("fail" if deploy else "warn", "redis", text, 3 if deploy else 0)
            return
        with connect(url) as client:
            check_reachable(client, url)
            yield Finding("ok", "redis", f"{without_secret(url)} answers in {_ping_ms(client):.1f} ms")
            dangers = check_safe(client)
            allowed = flag(environment, "ALLOW_UNSAFE_REDIS", default=False)
            for danger in dangers:
                yield Finding("warn" if allowed else "fail", "redis", danger, 0 if allowed else 3)
            if not dangers:
                yield Finding("ok", "redis", "keeps jobs: persistence and noeviction")
            yield _transition(client)
            yield _messages(client)
            yield from _capacity(client)
            yield _clock(client)
            yield from _operation(client)
    except FailoverError as error:
        yield from wrong("redis", error)
    except RedisError as error:
        yield Finding("fail", "redis", f"failed during the check: {error}", 3)


def _ping_ms(client: redis.Redis) -> float:
    began = time.monotonic()
    client.ping()
    return (time.monotonic() - began) * 1000


def _transition(client: redis.Redis) -> Finding:
    """One script of ours that writes and deletes a scratch key of each kind; it leaves nothing behind."""
    name = f"doctor-{uuid4().hex}"
    scratch, queue = keyspace.doctor(name), keyspace.queue(name)
    commands = [("SET", scratch, "1", "PX", "10000"), ("DEL", scratch), ("RPUSH", queue, "1"), ("DEL", queue)]
    try:
        ask(client, [although_full(*commands), ("GET", keyspace.PAUSE)])
    except ResponseError as error:
        return Finding("fail", "redis", f"refuses a script of ours: {error} — {ACL_FIX}", 3)
    return Finding("ok", "redis", "runs our scripts")


def _messages(client: redis.Redis) -> Finding:
    """Publishes and subscribes as workers do, on channels that nobody else reads."""
    name = f"doctor-{uuid4().hex}"
    channels = (keyspace.doctor(name), keyspace.worker_commands(name))
    try:
        with client.pubsub(ignore_subscribe_messages=True) as messages:  # type: ignore[no-untyped-call]  # redis-py has no types for it
            messages.subscribe(*channels)
            end = time.monotonic() + MESSAGE_SECONDS
            sent = arrived = 0
            while arrived < len(channels) and time.monotonic() < end:
                if messages.get_message(timeout=0.2) is not None:
                    arrived += 1
                elif not sent:  # the subscriptions are confirmed by now
                    sent = sum(int(client.publish(channel, "")) for channel in channels)
    except ResponseError as error:
        told = f"refuses messages: {error}, so workers hear of new jobs and switches late"
        return Finding("fail", "redis", f"{told} — {ACL_FIX}", 3)
    if arrived < len(channels):
        return Finding(
            "warn", "redis", "messages do not arrive: is a proxy between that knows no PUBLISH and SUBSCRIBE?"
        )
    return Finding("ok", "redis", "publishes and subscribes")


def _capacity(client: redis.Redis) -> Iterator[Finding]:
    info = client.info()
    most, used = int(info.get("maxclients", 0)), int(info.get("connected_clients", 0))
    text = f"{used} of {most} connections are used; a worker takes {CONNECTIONS['worker']}, a web process {CONNECTIONS['web']}"
    scarce = bool(most) and most - used < SPARE_CONNECTIONS
    yield Finding(
        "warn" if scarce else "ok", "connections", text + (" — start no more, or use a larger plan" if scarce else "")
    )
    limit, memory = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if limit and memory > NEARLY_FULL * limit:
        fix = "a full Redis refuses jobs: use a larger plan, or keep results for a shorter time"
        full = memory >= limit
        text = f"{memory / limit:.0%} of {limit / 1e6:.0f} MB are used — {fix}"
        yield Finding("fail" if full else "warn", "memory", text, 3 if full else 0)


def _clock(client: redis.Redis) -> Finding:
    seconds, micros = client.time()
    off = time.time() - (int(seconds) + int(micros) / 1e6)
    if abs(off) > CLOCK_SECONDS:
        return Finding(
            "warn", "clock", f"the clock of this machine differs from Redis by {off:+.1f} s — let NTP set it"
        )
    return Finding("ok", "clock", "agrees with Redis")


def _operation(client: redis.Redis) -> Iterator[Finding]:
    for queue in worker_registry.queues(client, DEFAULT_QUEUE):
        yield from (Finding("warn", "workers", text) for text in worker_registry.strangers(client, queue))
    workers = worker_registry.alive(client)
    none = Finding("warn", "workers", "none runs — start `failover-worker`")
    yield Finding("ok", "workers", f"{workers} run") if workers else none
    for each in paused(client, worker_registry.queues(client, DEFAULT_QUEUE)):
        yield Finding("warn", "paused", str(each))
