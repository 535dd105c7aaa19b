"""Many commands and their replies in one round trip, and the pool of an asyncio client's connections.

redis-py's pipelines do the same. But they pack commands in Python, and on asyncio give the writing, each reply and the pool's
two locks a task or a timer each, which together takes several times what the round trip itself does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import hiredis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

RANGES = (
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZREVRANGEBYSCORE",
)  # with WITHSCORES, RESP2 lists their pairs flat; redis-py pairs them


Commands = Sequence[Sequence[Any]]


def round_trip(client: redis.Redis, commands: Commands) -> list[Any]:
    """One reply for each command, in order, as redis-py returns it; the reply of a failed command is its ResponseError. Raises
    redis.exceptions.ConnectionError and TimeoutError: then nobody knows which commands were executed."""
    pool: Any = client.connection_pool
    connection: Any = pool.get_connection()
    try:
        replies = connection.exchange(_packed(commands))
    finally:
        pool.release(connection)
    return _as_read(client, commands, replies)


async def round_trip_async(client: redis.asyncio.Redis, commands: Commands) -> list[Any]:
    """As `round_trip`."""
    pool: Any = client.connection_pool
    connection: Any = await pool.get_connection()
    try:
        replies = await connection.exchange(_packed(commands))
    finally:
        await pool.release(connection)
    return _as_read(client, commands, replies)


def _packed(commands: Commands) -> list[bytes]:
    return [hiredis.pack_command(tuple(words)) for words in commands]


def _as_read(client: redis.Redis | redis.asyncio.Redis, commands: Commands, replies: list[Any]) -> list[Any]:
    """The replies as redis-py reads them."""
    for index, words in enumerate(commands):
        if words[0] != "EVALSHA" and not isinstance(replies[index], Exception):
            read = client.response_callbacks.get(words[0])
            scored = words[0] in RANGES and "WITHSCORES" in words
            replies[index] = (
                read(replies[index], **({"withscores": True} if scored else {})) if read else replies[index]
            )
    return replies


class Connections(redis.asyncio.BlockingConnectionPool):
    """At most `max_connections` connections. Who needs one more waits `timeout` seconds for it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._free = asyncio.Semaphore(self.max_connections)

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """Raises redis.exceptions.ConnectionError if none becomes free, or if it cannot be connected."""
        if self._free.locked():
            try:
                await asyncio.wait_for(self._free.acquire(), self.timeout)
            except TimeoutError:
                raise RedisConnectionError("No connection available.") from None
        else:
            await self._free.acquire()
        connection: Any = None
        try:
            connection = self.get_available_connection()  # type: ignore[no-untyped-call]
            await self.ensure_connection(connection)
        except BaseException:
            await self._put_back(connection)
            raise
        return connection

    async def ensure_connection(self, connection: Any) -> None:
        with contextlib.suppress(RedisConnectionError):
            if connection.is_connected and not connection.outdated and not await connection.can_read():
                return
        await super().ensure_connection(connection)

    async def release(self, connection: Any) -> None:
        await self._put_back(connection)

    async def _put_back(self, connection: Any) -> None:
        try:
            if connection is not None:
                self._in_use_connections.remove(connection)
                self._available_connections.append(connection)
        finally:
            self._free.release()
