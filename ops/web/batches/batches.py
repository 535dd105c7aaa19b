"""/v1/batches: create, list, read and cancel. What runs them is the runner (runner.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from ops.web.batches import batch_records, file_records
from ops.web.batches.batch_records import OPEN, Batch, new_batch_id
from ops.web.batches.file_records import now
from ops.web.batches.pages import After, Limit, page
from ops.web.openai.wanted import FEATURE, metadata_of, tenant_of, text_field
from producer import keyspace
from producer.client import AsyncProducer
from producer.errors import FailoverError, InvalidBody
from producer.intake import body, caller_of, read_object

ENDPOINT = "/v1/chat/completions"
BODY_BYTES = 256 * 1024
SECONDS = {"m": 60, "h": 3600, "d": 86400}
WINDOW = "^([1-9][0-9]{0,3}m|([1-9][0-9]?|1[0-5][0-9]|16[0-8])h|[1-7]d)$"  # up to 7 days


class Ended(FailoverError):
    """A batch that has ended cannot be cancelled."""

    status, code = 409, "batch_ended"

    def __init__(self, batch: Batch) -> None:
        super().__init__(f"the batch {batch.batch_id} is {batch.status} already")


class Batches:
    """The handlers. `wake`: the runner looks at once."""

    def __init__(self, producer: AsyncProducer, wake: Callable[[], None]) -> None:
        self._producer, self._wake = producer, wake

    async def create(self, request: Request) -> Response:
        """Run the requests of an uploaded file. A wrong line fails the whole batch, with its number."""
        asked = read_object(await body(request, BODY_BYTES))
        tenant = tenant_of(caller_of(request), request.headers)
        if asked.get("endpoint") != ENDPOINT:
            raise InvalidBody("endpoint", f"only {ENDPOINT} is supported here")
        metadata = metadata_of(asked.get("metadata"))
        feature = request.headers.get(FEATURE) or metadata.get("feature", "")
        window, file_id = text_field(asked, "completion_window") or "24h", text_field(asked, "input_file_id")
        seconds = _seconds(window)
        record = await file_records.read(self._producer, file_id, tenant)
        if record.purpose != "batch":
            raise InvalidBody("input_file_id", f"the file's purpose is {record.purpose}, and should be batch")
        created_at = now()
        fields = {
            "tenant": tenant,
            "status": "validating",
            "endpoint": ENDPOINT,
            "input_file_id": file_id,
            "completion_window": window,
            "metadata": json.dumps(metadata),
            "feature": feature[:256],
            "created_at": str(created_at),
            "expires_at": str(created_at + seconds),
        }
        batch = Batch(new_batch_id(), fields)
        await self._producer.send(batch_records.creating(batch))
        self._wake()
        return JSONResponse(batch.shown())

    async def list_batches(self, request: Request, limit: Limit = 20, after: After = None) -> Response:
        """The batches of a tenant, the latest first."""

        async def shown(ids: Sequence[str]) -> list[dict[str, Any] | None]:
            found = await batch_records.read_many(self._producer, ids)
            return [None if each is None else each.shown() for each in found]

        key = keyspace.batches_of(tenant_of(caller_of(request), request.headers))
        return JSONResponse(await page(self._producer, key, shown, limit=limit, after=after))

    async def show(self, request: Request, batch_id: str) -> Response:
        """One batch, with the counts as they are now."""
        return JSONResponse((await self._read(request, batch_id)).shown())

    async def cancel(self, request: Request, batch_id: str) -> Response:
        """Cancel a batch: jobs that have not ended are cancelled, and the answers that are there become its output."""
        batch = await self._read(request, batch_id)
        if batch.status == "cancelled" or batch.status == "cancelling":
            return JSONResponse(batch.shown())
        if batch.status not in OPEN:
            raise Ended(batch)
        fields: dict[str, str | int] = {"status": "cancelling", "cancelling_at": now()}
        await self._producer.send([batch_records.moving(batch_id, OPEN, fields)])
        self._wake()
        return JSONResponse((await self._read(request, batch_id)).shown())

    async def _read(self, request: Request, batch_id: str) -> Batch:
        return await batch_records.read(self._producer, batch_id, caller_of(request).tenant)


def _seconds(window: str) -> int:
    if re.fullmatch(WINDOW, window) is None:
        raise InvalidBody("completion_window", "should be a time as in 24h, up to 7d")
    return int(window[:-1]) * SECONDS[window[-1]]
