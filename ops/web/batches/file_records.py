"""What is known of a file beside its content, and the list of each tenant's files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from producer import keyspace
from producer.client import AsyncProducer
from producer.errors import FailoverError
from producer.exchange import sendable
from producer.scripts import Command, Script

PART = Script.load(Path(__file__).parent / "lua", "part")
KEEP_SECONDS = 30 * 86400
UNFINISHED_SECONDS = 86400
MOST_LISTED = 10_000  # files of a tenant that are listed, the latest


class UnknownFile(FailoverError):
    """No such file, or another tenant's."""

    status, code = 404, "file_not_found"

    def __init__(self, file_id: str) -> None:
        super().__init__(f"no file has the id {file_id!r:.200}: mistyped, deleted, or expired")


@dataclass(frozen=True)
class FileRecord:
    """One file. Times in Unix seconds. `size`: bytes of its content."""

    file_id: str
    tenant: str
    filename: str
    purpose: str
    created_at: int
    expires_at: int
    size: int

    def shown(self) -> dict[str, Any]:
        """OpenAI's file object."""
        facts = {"id": self.file_id, "object": "file", "bytes": self.size, "created_at": self.created_at}
        named = {"filename": self.filename, "purpose": self.purpose, "status": "processed", "status_details": None}
        return {**facts, "expires_at": self.expires_at, **named}


def new_file_id() -> str:
    return f"file-{uuid4().hex}"


def writing(record: FileRecord) -> list[Command]:
    """The commands that write the record of a file whose parts are there."""
    key, parts = keyspace.file(record.file_id), keyspace.file_parts(record.file_id)
    fields: dict[str, str | int] = {
        "tenant": record.tenant,
        "filename": record.filename,
        "purpose": record.purpose,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "size": record.size,
    }
    flat = [word for pair in fields.items() for word in pair]
    listed = keyspace.files_of(record.tenant)
    return [
        ("HSET", key, *flat),
        ("EXPIREAT", key, record.expires_at),
        ("EXPIREAT", parts, record.expires_at),
        ("ZADD", listed, record.created_at, record.file_id),
        ("ZREMRANGEBYRANK", listed, 0, -MOST_LISTED - 1),
        ("EXPIRE", listed, KEEP_SECONDS),
        ("ZADD", keyspace.FILES_KEPT, "XX", record.expires_at, record.file_id),
    ]


def part_writing(file_id: str, number: int, entry: bytes, stored: int) -> Command:
    """The command that adds part `number` to a file that is uploaded; an unfinished one is gone after a day."""
    keys = [keyspace.file_parts(file_id), keyspace.FILES_KEPT, keyspace.FILE_SIZES]
    return PART.call(keys, [number, entry, file_id, stored, now() + UNFINISHED_SECONDS])


async def read(producer: AsyncProducer, file_id: str, tenant: str | None) -> FileRecord:
    """Raises UnknownFile, also for a file of another tenant than `tenant`; ServiceUnavailable."""
    (record,) = await read_many(producer, [file_id])
    if record is None or (tenant is not None and record.tenant != tenant):
        raise UnknownFile(file_id)
    return record


async def read_many(producer: AsyncProducer, file_ids: Sequence[str]) -> list[FileRecord | None]:
    names = ("tenant", "filename", "purpose", "created_at", "expires_at", "size")
    ids = list(map(sendable, file_ids))
    replies = await producer.send([("HMGET", keyspace.file(file_id), *names) for file_id in ids])
    return [_record(file_id, values) for file_id, values in zip(ids, replies, strict=True)]


def _record(file_id: str, values: Sequence[bytes | None]) -> FileRecord | None:
    if any(value is None for value in values):
        return None
    tenant, filename, purpose, created_at, expires_at, size = (
        value.decode(errors="replace") for value in values if value
    )
    return FileRecord(file_id, tenant, filename, purpose, int(created_at), int(expires_at), int(size or 0))


async def delete(producer: AsyncProducer, record: FileRecord) -> None:
    """Forget a file; its content is deleted by the store."""
    listed = keyspace.files_of(record.tenant)
    await producer.send([("DEL", keyspace.file(record.file_id)), ("ZREM", listed, record.file_id)])


def now() -> int:
    return int(time.time())
