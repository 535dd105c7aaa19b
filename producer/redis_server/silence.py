"""Connections to Redis whose timeout is a limit on silence, not on a whole command or reply.

redis-py gives the whole of a command and the whole of a reply one `socket_timeout`. So 16 MB over a slow link look like a
Redis that does not answer. Here the time counts again from every piece that arrives, and a command gets the time that its
bytes need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

PIECE = 64 * 1024  # bytes
SLOWEST_LINK = 250_000  # bytes a second


def transfer_seconds(size: int) -> float:
    """How long `size` bytes take over the slowest link that is still of use."""
    return size / SLOWEST_LINK


class _PatientAsync:
    """Mixed into redis-py's asyncio connections."""

    socket_timeout: float | None
    _active_read_timeout: asyncio.Timeout | None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._silence = self.socket_timeout

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[misc]  # of redis-py's class
        reader: Any = self._reader  # type: ignore[attr-defined]
        feed = reader.feed_data

        def feed_and_wait_on(data: bytes) -> None:
            feed(data)
            self.socket_timeout = self._silence
            limit = self._active_read_timeout
            if limit is not None and self._silence is not None and not limit.expired():
                until = asyncio.get_running_loop().time() + self._silence
                limit.reschedule(max(limit.when() or 0.0, until))  # what is still being sent keeps its time

        reader.feed_data = feed_and_wait_on  # the protocol calls it for every piece that arrives

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        pieces = [command] if isinstance(command, bytes | str) else list(command)
        if self._silence is not None and (size := sum(map(len, pieces))) > PIECE:
            self.socket_timeout = self._silence + transfer_seconds(size)  # until the reply begins
        await super().send_packed_command(pieces, check_health)  # type: ignore[misc]

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands, and read a reply for each: its value or its ResponseError. When the time is over, or the caller
        is cancelled, the connection is closed, so that no later caller reads these replies."""
        connection: Any = self
        await connection.check_health()
        silence = self._silence
        if silence is not None and (size := sum(map(len, commands))) > PIECE:
            silence += transfer_seconds(size)  # until the first reply begins
        try:
            async with asyncio.timeout(silence) as limit:
                self._active_read_timeout = limit
                await connection._send_packed_command(commands)
                replies = [await connection._parser.read_response() for _ in commands]
        except TimeoutError:
            await connection.disconnect(nowait=True)
            raise RedisTimeoutError("Redis does not answer") from None
        except OSError as error:
            await connection.disconnect(nowait=True)
            raise RedisConnectionError(f"the connection to Redis broke: {error}") from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            self._active_read_timeout = None
        connection.next_health_check = asyncio.get_running_loop().time() + connection.health_check_interval
        return replies


class _PatientBlocking:
    """Mixed into redis-py's blocking connections."""

    socket_timeout: float | None

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        pieces = [command] if isinstance(command, bytes | str) else list(command)
        parts = [part for piece in pieces for part in _parts(piece)]
        super().send_packed_command(parts, check_health)  # type: ignore[misc]
        sock: Any = self._sock  # type: ignore[attr-defined]
        if self.socket_timeout is not None and sock is not None:  # for the reply, while the link still carries them
            sock.settimeout(self.socket_timeout + transfer_seconds(sum(map(len, parts))))


def _parts(piece: bytes | str) -> Iterable[bytes | str]:
    """Pieces that are small enough for one `sendall`, whose timeout counts for the whole of it."""
    if len(piece) <= PIECE:
        return (piece,)
    return (piece[start : start + PIECE] for start in range(0, len(piece), PIECE))


def patient(connection: type[Any], *, asyncio: bool) -> type[Any]:
    """A class of redis-py's connections with a limit on silence."""
    return type(f"Patient{connection.__name__}", (_PatientAsync if asyncio else _PatientBlocking, connection), {})
