"""Where the content of files is kept, in parts: in Redis up to a limit for all, or at FILES_URL (a folder or an object store).

A file's parts are a list in Redis, each compressed. With FILES_URL the list has their names there. No file is whole in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from ops.web.batches.file_records import now
from producer import keyspace
from producer.client import AsyncProducer
from producer.errors import FailoverError, ServiceUnavailable
from worker.history.archive import Archive

VARIABLE = "FILES_URL"
PART_BYTES = 512 * 1024
IN_REDIS_BYTES = 50_000_000  # compressed, of all files together
_HERE, _THERE = b"=", b"@"  # how an entry of a file's list begins: a part, or its name at FILES_URL


class StoreFull(FailoverError):
    """No room for more content in Redis."""

    status, code = 507, "files_full"

    def __init__(self) -> None:
        fix = f"delete some, or set {VARIABLE} to a folder or s3://bucket/folder"
        super().__init__(f"files in Redis may take {IN_REDIS_BYTES / 1e6:.0f} MB in all, and do — {fix}")

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}


@dataclass(frozen=True)
class Part:
    """A part that is kept. `entry`: of the file's list. `stored`: bytes that it takes in Redis. `size`: of its content."""

    entry: bytes = b""
    stored: int = 0
    size: int = 0


class Store:
    """`archive`: of FILES_URL; None: Redis itself."""

    def __init__(self, producer: AsyncProducer, archive: Archive | None) -> None:
        self._producer, self._archive = producer, archive

    async def keep(self, file_id: str, name: str, content: bytes) -> Part:
        """Keep the content of one part; doing it again changes nothing. Raises StoreFull, ServiceUnavailable."""
        if not content:
            return Part()
        packed = await run_in_threadpool(zlib.compress, content, 6)
        if self._archive is None:
            if await self.used() + len(packed) > IN_REDIS_BYTES:
                raise StoreFull
            return Part(_HERE + packed, len(packed), len(content))
        path = f"files/{file_id}/{name}"
        try:
            await run_in_threadpool(self._archive.write, path, packed)
        except OSError as error:
            raise ServiceUnavailable(f"{VARIABLE} takes no file: {error} — try again when it does") from None
        return Part(_THERE + path.encode(), 0, len(content))

    async def used(self) -> int:
        """Bytes that all files take in Redis."""
        (gone,) = await self._producer.send([("ZRANGEBYSCORE", keyspace.FILES_KEPT, "-inf", now())])
        if gone:
            await self._producer.send(
                [("HDEL", keyspace.FILE_SIZES, *gone), ("ZREM", keyspace.FILES_KEPT, *gone)],
            )
        (sizes,) = await self._producer.send([("HVALS", keyspace.FILE_SIZES)])
        return sum(map(int, sizes))

    async def content(self, file_id: str) -> AsyncIterator[bytes]:
        """The content of a file, part by part. Raises ServiceUnavailable."""
        at = 0
        while True:
            (entries,) = await self._producer.send([("LRANGE", keyspace.file_parts(file_id), at, at)])
            if not entries:
                return
            yield await self._read(entries[0])
            at += 1

    async def _read(self, entry: bytes) -> bytes:
        kind, packed = entry[:1], entry[1:]
        if kind == _THERE:
            if self._archive is None:
                raise ServiceUnavailable(f"the file is at {VARIABLE}, which is not set here — set it")
            try:
                packed = await run_in_threadpool(self._archive.read, packed.decode())
            except OSError as error:
                raise ServiceUnavailable(f"{VARIABLE} gives no file: {error}") from None
        return await run_in_threadpool(zlib.decompress, packed)

    async def forget(self, file_id: str) -> None:
        """Delete the content of a file."""
        parts = keyspace.file_parts(file_id)
        (entries,) = await self._producer.send([("LRANGE", parts, 0, -1)])
        if self._archive is not None:
            for entry in entries:
                if entry[:1] == _THERE:
                    await run_in_threadpool(self._archive.delete, entry[1:].decode())
        gone = (("DEL", parts), ("HDEL", keyspace.FILE_SIZES, file_id), ("ZREM", keyspace.FILES_KEPT, file_id))
        await self._producer.send(gone)
