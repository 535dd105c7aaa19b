"""Bounds on what strangers can take: how long a request may take to arrive, and how many connections are open at once."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from producer.intake.reading import RENEWS_BYTES

log = logging.getLogger("failover.web.connections")

HEAD_SECONDS = 5.0  # for the request line and the headers
BODY_SECONDS = 25.0  # for each RENEWS_BYTES of the body; producer/intake/reading.py answers a slow one before
DRAIN_SECONDS = 60.0  # for a client to read enough of its answer that more can be sent
MOST_CONNECTIONS = 2500  # requests of /v1 wait for their answers
ACCEPTED_AT_ONCE = 32  # before the bound is applied
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connections(ServerState):
    """The open connections, at most `most`. A further one takes the place of one whose request has not arrived yet."""

    def __init__(self, most: int, head_seconds: float = HEAD_SECONDS, body_seconds: float = BODY_SECONDS) -> None:
        super().__init__()
        self.most = most
        self.seconds = {
            h11.IDLE: head_seconds,
            h11.SEND_BODY: body_seconds,
        }  # by the part of a request that is arriving
        # The connections by that part, those that began it first at the head. A place is taken from heads before bodies.
        self.arriving: dict[Any, dict[Connection, None]] = {h11.IDLE: {}, h11.SEND_BODY: {}}

    def make_room(self) -> bool:
        """Close the connection whose request has been arriving for the longest. False: every request is being answered."""
        for connections in self.arriving.values():
            for connection in connections:
                log.warning("too many connections: those whose request does not arrive are closed")
                connection.end()
                return True
        return False

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler. When accept() finds no free descriptor, asyncio tries again in a second, but logs a
        traceback for each try."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES and "socket" in context:
            log.warning("no connection can be accepted now", extra={"error": error.strerror})
            self.make_room()
        else:
            loop.default_exception_handler(context)


class Connection(H11Protocol):
    """uvicorn's connection, with a deadline for every part of a request and for the reading of its answer."""

    server_state: Connections
    _part: Any = None
    _arrived = 0  # bytes of the part since its deadline was set
    _deadline: asyncio.TimerHandle | None = None
    _drained_by: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > self.server_state.most and not self.server_state.make_room():
            log.warning("too many requests at once: further connections are closed")
            self.end()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._arrived += len(data)
        if self._part is h11.SEND_BODY and self._arrived >= RENEWS_BYTES:
            self._part = None  # a large body on a slow link is no stranger's: each piece has its own time
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._drained_by = self.loop.call_later(DRAIN_SECONDS, self.end)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._drained_by)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        _cancel(self._deadline)
        _cancel(self._drained_by)
        for connections in self.server_state.arriving.values():
            connections.pop(self, None)

    def end(self) -> None:
        """Close at once, whatever is not sent yet."""
        for connections in self.server_state.arriving.values():
            connections.pop(self, None)
        self.transport.abort()

    def _watch(self) -> None:
        """Start the deadline when another part of a request begins to arrive."""
        if self.conn.their_state is self._part or self.transport.is_closing():
            return
        self._part, self._arrived = self.conn.their_state, 0
        _cancel(self._deadline)
        for part, connections in self.server_state.arriving.items():
            connections.pop(self, None)
            if part is self._part:
                connections[self] = None
                self._deadline = self.loop.call_later(self.server_state.seconds[part], self._too_late)

    def _too_late(self) -> None:
        if self.conn.our_state is h11.IDLE and not self.transport.is_closing():
            self.transport.write(TOO_LATE)
        self.end()


class Seldom(logging.Filter):
    """Lets each warning through at most once a minute; `times`: how many there were since the last one. Strangers cause
    these lines, as many as they like."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}  # the texts are our own and uvicorn's, so they are few

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        last, times = self._seen.get(record.msg, (-math.inf, 0))
        if record.levelno > logging.WARNING:
            return True
        if now - last < 60:
            self._seen[record.msg] = (last, times + 1)
            return False
        self._seen[record.msg] = (now, 0)
        record.times = times + 1
        return True


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
