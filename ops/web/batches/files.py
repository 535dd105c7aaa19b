"""/v1/files: upload, list, read and delete."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ops.web.batches import file_records
from ops.web.batches.file_records import KEEP_SECONDS, FileRecord, new_file_id, now
from ops.web.batches.pages import After, Limit, Order, page
from ops.web.batches.store import PART_BYTES, Store
from ops.web.openai.wanted import tenant_of
from producer import keyspace
from producer.client import AsyncProducer
from producer.errors import BadRequest, BodyTooLarge, InvalidBody
from producer.intake import caller_of

PURPOSES = ("batch", "assistants", "fine-tune", "vision", "user_data", "evals")
LARGEST_BYTES = 200_000_000  # of one file, as OpenAI has it for batches
PASSED_OVER_BYTES = 2_000_000_000
FORM_BYTES = 64 * 1024  # of a multipart body, beside the file
Purpose = Annotated[Literal[PURPOSES] | None, Query(description="Only files of this purpose.")]  # type: ignore[valid-type]


class Files:
    """The handlers."""

    def __init__(self, producer: AsyncProducer, store: Store) -> None:
        self._producer, self._store = producer, store

    async def create(self, request: Request) -> Response:
        """Upload a file of up to 200 MB. It is kept for 30 days, or as `expires_after` says."""
        form = await _form(request)
        try:
            tenant = tenant_of(caller_of(request), request.headers)
            upload, purpose, seconds = _fields(form)
            record = await self._kept(upload, tenant, purpose, seconds)
        finally:
            await form.close()
        return JSONResponse(record.shown())

    async def _kept(self, upload: UploadFile, tenant: str, purpose: str, seconds: int) -> FileRecord:
        file_id, size, number = new_file_id(), 0, 0
        while content := await upload.read(PART_BYTES):
            part = await self._store.keep(file_id, f"{number:06}", content)
            await self._producer.send([file_records.part_writing(file_id, number, part.entry, part.stored)])
            size, number = size + part.size, number + 1
        created_at = now()
        filename = (upload.filename or "file")[:255]
        record = FileRecord(file_id, tenant, filename, purpose, created_at, created_at + seconds, size)
        await self._producer.send(file_records.writing(record))
        return record

    async def list_files(
        self,
        request: Request,
        purpose: Purpose = None,
        limit: Limit = 10_000,
        after: After = None,
        order: Order = "desc",
    ) -> Response:
        """The files of a tenant."""

        async def shown(ids: Sequence[str]) -> list[dict[str, Any] | None]:
            records = await file_records.read_many(self._producer, ids)
            return [each.shown() if each and purpose in (None, each.purpose) else None for each in records]

        key = keyspace.files_of(tenant_of(caller_of(request), request.headers))
        return JSONResponse(await page(self._producer, key, shown, limit=limit, after=after, order=order))

    async def show(self, request: Request, file_id: str) -> Response:
        """One file."""
        return JSONResponse((await self._record(request, file_id)).shown())

    async def content(self, request: Request, file_id: str) -> Response:
        """The content of a file."""
        record = await self._record(request, file_id)
        headers = {"content-length": str(record.size)}
        return StreamingResponse(self._store.content(file_id), 200, headers, media_type="application/octet-stream")

    async def delete(self, request: Request, file_id: str) -> Response:
        """Delete a file."""
        record = await self._record(request, file_id)
        await self._store.forget(file_id)
        await file_records.delete(self._producer, record)
        return JSONResponse({"id": file_id, "object": "file", "deleted": True})

    async def _record(self, request: Request, file_id: str) -> FileRecord:
        return await file_records.read(self._producer, file_id, caller_of(request).tenant)


async def _form(request: Request) -> FormData:
    """The multipart form; a large file in it is on disk, not in memory. Raises BodyTooLarge, BadRequest."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest("a file is sent as multipart/form-data, with the fields `purpose` and `file`")
    try:
        return await MultiPartParser(request.headers, _bounded(request), max_files=1, max_fields=20).parse()
    except MultiPartException as error:
        raise BadRequest(f"the multipart body cannot be read: {error.message}") from None
    except ClientDisconnect:
        raise BadRequest("the body did not arrive completely") from None


async def _bounded(request: Request) -> AsyncGenerator[bytes, None]:
    """The body. Of one that is too large the rest is read and ignored: a client that still sends would not read the error."""
    size, most = 0, LARGEST_BYTES + FORM_BYTES
    refused = int(request.headers.get("content-length") or 0) > most
    async for chunk in request.stream():
        size += len(chunk)
        refused = refused or size > most
        if not refused:
            yield chunk
        elif size > PASSED_OVER_BYTES:
            break
    if refused:
        raise BodyTooLarge(LARGEST_BYTES)


def _fields(form: FormData) -> tuple[UploadFile, str, int]:
    """The file, its purpose, and how many seconds it is kept. Raises InvalidBody."""
    upload, purpose = form.get("file"), form.get("purpose")
    if not isinstance(upload, UploadFile):
        raise InvalidBody("file", "is missing: send the content as a file")
    if purpose not in PURPOSES:
        raise InvalidBody("purpose", f"should be one of {', '.join(PURPOSES)}")
    seconds = form.get("expires_after[seconds]", str(KEEP_SECONDS))
    if not (isinstance(seconds, str) and re.fullmatch("[0-9]{1,9}", seconds) and 3600 <= int(seconds) <= KEEP_SECONDS):
        raise InvalidBody("expires_after.seconds", f"should be between 3600 and {KEEP_SECONDS}")
    return upload, str(purpose), int(seconds)
