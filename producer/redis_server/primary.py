"""Connections that follow the primary: when a server says that it is not the primary any more, all connections to its address
are made anew.

Behind one address (a name, a proxy) another server may become the primary while old connections stay. The old server then
refuses writes on them for ever. So such a reply breaks its connection, and marks the address: connections that were made
before the mark are not used again. The command itself fails as after a lost reply, and its caller resends it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

from redis.exceptions import BusyLoadingError, ClusterDownError, MasterDownError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

_KINDS = (ReadOnlyError, MasterDownError, BusyLoadingError, ClusterDownError)
_PREFIXES = ("UNBLOCKED", "NOREPLICAS")  # replies that redis-py has no exception for

_marked: dict[
    str, float
] = {}  # by address: when a server there said so last (monotonic); as many as a process has REDIS_URLs
_open: WeakSet[Any] = WeakSet()  # those that exist now


class _Follower:
    """What both kinds of connections share. `_made`: when its socket was opened."""

    _made = 0.0

    @property
    def _address(self) -> str:
        return str(getattr(self, "path", None) or f"{getattr(self, 'host', '')}:{getattr(self, 'port', '')}")

    @property
    def outdated(self) -> bool:
        """Whether its server may have stopped being the primary since it was connected."""
        return self._made <= _marked.get(self._address, 0.0)

    def _mark(self, error: Exception) -> RedisConnectionError:
        """Mark the address. Returns the error to raise in place of the server's."""
        _marked[self._address] = time.monotonic()
        return RedisConnectionError(f"this server is not a primary that accepts writes now: {error}")


class _Blocking(_Follower):
    """Mixed into redis-py's blocking connections."""

    def _connect(self) -> Any:
        self._made = time.monotonic()
        return super()._connect()  # type: ignore[misc]  # of redis-py's class

    def connect(self) -> None:
        """Called by the pool before each use."""
        if self.outdated:
            self.disconnect()  # type: ignore[attr-defined]
        super().connect()  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except (ResponseError, BusyLoadingError) as error:
            if not _not_primary(error):
                raise
            self.disconnect()  # type: ignore[attr-defined]
            raise self._mark(error) from error


class _Asyncio(_Follower):
    """Mixed into redis-py's asyncio connections."""

    _loop: asyncio.AbstractEventLoop | None = None

    async def _connect(self) -> None:
        self._made, self._loop = time.monotonic(), asyncio.get_running_loop()
        _open.add(self)
        await super()._connect()  # type: ignore[misc]

    async def connect(self) -> None:
        """Called by the pool before each use."""
        if self.outdated:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
        await super().connect()  # type: ignore[misc]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc]
        except (ResponseError, BusyLoadingError) as error:
            if not _not_primary(error):
                raise
            raise await self._lost(error) from error

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """As silence.py has it."""
        try:
            replies: list[Any] = await super().exchange(commands)  # type: ignore[misc]
        except BusyLoadingError as error:
            raise await self._lost(error) from error
        for reply in replies:
            if isinstance(reply, Exception) and _not_primary(reply):
                raise await self._lost(reply) from reply
        return replies

    async def _lost(self, error: Exception) -> RedisConnectionError:
        """Break what is connected to this server. Returns the error to raise."""
        await self.disconnect(nowait=True)  # type: ignore[attr-defined]
        reason = self._mark(error)
        self._close_others()
        return reason

    def _close_others(self) -> None:
        """Break the loop's other connections to this address. A subscription would otherwise wait on the old server for ever.

        Their sockets end as if the server had closed them: a task that is about to write on one gets a ConnectionError.
        redis-py's own way to close takes the writer from under it, which is an AttributeError there.
        """
        for other in tuple(_open):
            ours = other._address == self._address and other._loop is self._loop
            if ours and other.outdated and other._writer is not None:
                other._writer.transport.abort()


def _not_primary(error: Exception) -> bool:
    return isinstance(error, _KINDS) or str(error).startswith(_PREFIXES)


def following(connection: type[Any], *, asyncio: bool) -> type[Any]:
    """A class of redis-py's connections that follows the primary."""
    return type(f"Following{connection.__name__}", (_Asyncio if asyncio else _Blocking, connection), {})
