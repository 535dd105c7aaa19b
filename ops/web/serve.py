"""The web process: uvicorn with our own signals. After SIGTERM, requests end within the drain; the exit code is 0."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType

import redis
import uvicorn
from fastapi import FastAPI
from redis.exceptions import RedisError

from ops.web import connections, last_worker
from ops.web.app import create_app
from ops.web.connections import ACCEPTED_AT_ONCE, MOST_CONNECTIONS, Connection, Connections, Seldom
from ops.web.draining import Draining
from ops.web.settings import Settings
from producer import telemetry
from producer.client import REPLY_TIMEOUT_SECONDS, AsyncProducer
from producer.connection import connect, require_safe
from producer.environment import Environment
from producer.errors import ConfigurationError, Problem, UsageError
from producer.policy import load_policies
from worker import logs
from worker.control import tokens
from worker.control.descriptors import raise_descriptor_limit
from worker.memory import return_freed_memory
from worker.network import Network

log = logging.getLogger("failover.web")

REPLY_SECONDS, CALL_SECONDS = 4.0, 6.0  # of Redis: a busy process of ours is no word on Redis
DRAIN_SECONDS = 25  # Heroku kills after 30
BACKLOG = 2048  # connections that the kernel holds until they are accepted
EVERYWHERE, LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104 - only with a secret


class Server(uvicorn.Server):
    """uvicorn, with bounds on connections. At its end uvicorn raises the signal again; this server exits with 0, because a
    requested stop is no failure."""

    server_state: Connections

    def __init__(self, app: FastAPI, connections: Connections, draining: Draining) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            h11_max_incomplete_event_size=64 * 1024,
            backlog=ACCEPTED_AT_ONCE,
        )
        super().__init__(config)
        self.server_state = connections
        self._draining = draining

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._draining.begin()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().set_exception_handler(self.server_state.on_loop_error)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio has set it to ACCEPTED_AT_ONCE; so many may still wait

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def serve(environment: Environment, url: str, host: str | None, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError; UsageError for an address that cannot be used."""
    return_freed_memory()  # else a body of megabytes stays in the heap after its request
    settings, policies = Settings.of(environment), load_policies(environment)
    client = connect(url, reply_timeout=REPLY_TIMEOUT_SECONDS, max_connections=4)
    logs.configure()
    if not settings.any_token:
        settings = replace(settings, redis_tokens=_any_token(client))
    host = host or (EVERYWHERE if settings.any_secret else LOOPBACK)
    if not settings.any_secret and host not in (LOOPBACK, "localhost", "::1"):
        fix = "set it, or `failover tokens create` a token; or leave --host out to serve this machine only"
        raise ConfigurationError(
            [Problem("FAILOVER_API_TOKEN", "", f"is not set, so it may not listen on {host}", fix)]
        )
    for noisy in ("uvicorn.error", connections.log.name):
        logging.getLogger(noisy).addFilter(Seldom())
    most = min(
        MOST_CONNECTIONS, raise_descriptor_limit() // 2
    )  # the rest is for Redis, files and what was just accepted
    _require_safe(client, allowed=settings.unsafe_redis)
    listener = _listener(host, port)
    facts = {"host": host, "port": listener.getsockname()[1], "secret": settings.any_secret}
    log.info("serving", extra={**facts, "connections": most})
    if not settings.any_secret:
        log.warning("no secret is configured: only this machine is served; set FAILOVER_API_TOKEN to serve others")
    telemetry.start(environment, "failover-web", lambda url: Network.of(environment).options(url))
    producer = AsyncProducer.from_url(url, policies, reply_timeout=REPLY_SECONDS, longest_call_seconds=CALL_SECONDS)
    draining = Draining()
    server = Server(create_app(producer, client, settings, draining, environment), Connections(most), draining)
    with last_worker.watched(environment, url):
        asyncio.run(server.serve(sockets=[listener]))
    log.info("stopped serving")


def _any_token(client: redis.Redis) -> bool:
    """Whether Redis holds a token, so that strangers are refused. While Redis cannot say, only this machine is served."""
    try:
        return bool(tokens.listed(client))
    except RedisError as error:
        log.warning("redis is away: whether it holds tokens is not known", extra={"error": str(error)})
        return False


def _require_safe(client: redis.Redis, *, allowed: bool) -> None:
    """As for a worker: accept no jobs into a Redis that can lose them. While Redis is down, /readyz does this check."""
    try:
        for danger in require_safe(client, allowed=allowed):
            log.warning("redis is not safe", extra={"danger": danger})
    except RedisError:
        log.warning("redis is away: /readyz says when it is back")


def _listener(host: str, port: int) -> socket.socket:
    """A listening socket, opened first, so that a used port is an error before anything starts. Raises UsageError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else str(error)
        fix = ": take another one with --port N" if error.errno == errno.EADDRINUSE else ""
        raise UsageError(f"{host}:{port} cannot be listened on: {why}{fix}") from None
    listener.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # without it an answer may wait 40 ms for an acknowledgement
    return listener
