"""Connections to Redis whose timeout is a limit on silence, not on a whole command or reply.

redis-py gives the whole of a command and the whole of a reply one `socket_timeout`. So 16 MB over a slow link look like a
Redis that does not answer. Here the time counts again from every piece that arrives, and a command gets the time that its
bytes need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import redis.asyncio.connection as aio
import redis.connection as blocking

PIECE = 64 * 1024  # bytes
SLOWEST_LINK = 250_000  # bytes a second


def transfer_seconds(size: int) -> float:
    """How long `size` bytes take over the slowest link that is still of use."""
    return size / SLOWEST_LINK


class _PatientAsync(aio.AbstractConnection):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._silence = self.socket_timeout

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call, safe-super]  # the class beside it has the body
        reader: Any = self._reader
        feed = reader.feed_data

        def feed_and_wait_on(data: bytes) -> None:
            feed(data)
            self.socket_timeout = self._silence
            limit: asyncio.Timeout | None = self._active_read_timeout
            if limit is not None and self._silence is not None and not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time() + self._silence)

        reader.feed_data = feed_and_wait_on  # the protocol calls it for every piece that arrives

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        pieces = [command] if isinstance(command, bytes | str) else list(command)
        if self._silence is not None and (size := sum(map(len, pieces))) > PIECE:
            self.socket_timeout = self._silence + transfer_seconds(size)  # until the reply begins
        await super().send_packed_command(pieces, check_health)  # type: ignore[arg-type]


class _PatientBlocking(blocking.AbstractConnection):
    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        pieces = [command] if isinstance(command, bytes | str) else list(command)
        parts = [part for piece in pieces for part in _parts(piece)]
        super().send_packed_command(parts, check_health)  # type: ignore[no-untyped-call]
        sock: Any = self._sock
        if self.socket_timeout is not None and sock is not None:  # for the reply, while the link still carries them
            sock.settimeout(self.socket_timeout + transfer_seconds(sum(map(len, parts))))


def _parts(piece: bytes | str) -> Iterable[bytes | str]:
    """Pieces that are small enough for one `sendall`, whose timeout counts for the whole of it."""
    if len(piece) <= PIECE:
        return (piece,)
    return (piece[start : start + PIECE] for start in range(0, len(piece), PIECE))


class PatientConnection(_PatientAsync, aio.Connection):
    pass


class PatientSSLConnection(_PatientAsync, aio.SSLConnection):
    pass


class PatientUnixConnection(_PatientAsync, aio.UnixDomainSocketConnection):
    pass


class BlockingConnection(_PatientBlocking, blocking.Connection):
    pass


class BlockingSSLConnection(_PatientBlocking, blocking.SSLConnection):
    pass


class BlockingUnixConnection(_PatientBlocking, blocking.UnixDomainSocketConnection):
    pass


# by the scheme of the URL
ASYNC: dict[str, type[Any]] = {
    "redis": PatientConnection,
    "rediss": PatientSSLConnection,
    "unix": PatientUnixConnection,
}
BLOCKING: dict[str, type[Any]] = {
    "redis": BlockingConnection,
    "rediss": BlockingSSLConnection,
    "unix": BlockingUnixConnection,
}
