"""Many commands and their replies in one round trip, and the pool of an asyncio client's connections.

redis-py's pipelines do the same. But on asyncio they pack commands in Python, and give the writing, each reply and the pool's two
locks a task or a timer each, which together takes several times what the round trip itself does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import hiredis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, ResponseError

# With WITHSCORES, RESP2 lists their pairs flat; redis-py pairs them.
RANGES = ("ZRANGE", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE")

Commands = Sequence[Sequence[Any]]


def round_trip(client: redis.Redis, commands: Commands) -> list[Any]:
    """One reply for each command, in order, as redis-py returns it; the reply of a failed command is its ResponseError.

    A command's first word is its name; one of two words (CONFIG GET) is two words. Raises redis.exceptions.DataError for a word
    that is no text, bytes, int or float, before anything is sent; ConnectionError and TimeoutError: then nobody knows which
    commands were executed.
    """
    if not (packed := _packed(commands)):
        return []
    pool: Any = client.connection_pool
    connection: Any = pool.get_connection()
    try:
        connection.send_packed_command([b"".join(packed)])
        replies = [_reply(connection) for _ in packed]
    except BaseException:
        connection.disconnect()  # so that no later caller reads these replies
        raise
    finally:
        pool.release(connection)
    return _as_read(client, commands, replies)


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


async def round_trip_async(client: redis.asyncio.Redis, commands: Commands) -> list[Any]:
    """As `round_trip`."""
    pool: Any = client.connection_pool
    if not isinstance(pool, Connections):  # not made by us, so it may have any kind of connection
        pipeline: Any = client.pipeline(transaction=False)
        for words in commands:
            pipeline.execute_command(*words, **_options_of(words))
        return list(await pipeline.execute(raise_on_error=False))
    if not (packed := _packed(commands)):
        return []
    connection: Any = await pool.get_connection()
    try:
        replies = await connection.exchange(packed)
    finally:
        await pool.release(connection)
    return _as_read(client, commands, replies)


def _packed(commands: Commands) -> list[bytes]:
    try:
        return [hiredis.pack_command(tuple(words)) for words in commands]
    except TypeError as error:
        raise DataError(f"{[words[0] for words in commands]}: {error}") from None


def _options_of(words: Sequence[Any]) -> dict[str, Any]:
    """What redis-py must know of a command to read its reply."""
    return {"withscores": True} if words[0] in RANGES and "WITHSCORES" in words else {}


def _as_read(client: redis.Redis | redis.asyncio.Redis, commands: Commands, replies: list[Any]) -> list[Any]:
    """The replies as redis-py reads them."""
    for index, (words, reply) in enumerate(zip(commands, replies, strict=True)):
        name = words[0]
        read = None if name == "EVALSHA" or isinstance(reply, Exception) else client.response_callbacks.get(name)
        if read is not None:
            replies[index] = read(reply, **_options_of(words))
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
                async with asyncio.timeout(self.timeout):  # `wait_for` may swallow a cancel, or lose the place
                    await self._free.acquire()
            except TimeoutError:
                raise RedisConnectionError("No connection available.") from None
        else:
            await self._free.acquire()
        connection: Any = None
        try:
            connection = self.get_available_connection()  # type: ignore[no-untyped-call]
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def ensure_connection(self, connection: Any) -> None:
        with contextlib.suppress(RedisConnectionError):
            if connection.is_connected and not connection.outdated and not await connection.can_read():
                return
        await super().ensure_connection(connection)

    async def release(self, connection: Any) -> None:
        """Take a connection back. None: its place alone, because it could not be made."""
        if connection in self._in_use_connections:
            self._in_use_connections.remove(connection)
            self._available_connections.append(connection)
        self._free.release()

    def reset(self) -> None:
        super().reset()  # type: ignore[no-untyped-call]
        self._free = asyncio.Semaphore(self.max_connections)
