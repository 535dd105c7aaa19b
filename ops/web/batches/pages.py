"""Lists of files and batches, page by page, as OpenAI's SDKs read them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import Query

from producer.client import AsyncProducer

MOST = 10_000
Limit = Annotated[int, Query(ge=1, le=MOST, description="How many, at most.")]
After = Annotated[str | None, Query(max_length=200, description="The last id of the page before.")]
Order = Annotated[Literal["asc", "desc"], Query(description="By the time of creation.")]
Shown = Callable[[Sequence[str]], Awaitable[list[dict[str, Any] | None]]]


async def page(
    producer: AsyncProducer, key: str, shown: Shown, *, limit: int, after: str | None, order: str = "desc"
) -> dict[str, Any]:
    """A page of the ids in the sorted set `key`. `shown`: the objects of ids; None for one that is gone or not wanted."""
    (ids,) = await producer.send([("ZRANGE", key, 0, -1) if order == "asc" else ("ZREVRANGE", key, 0, -1)])
    names = [each.decode() for each in ids]
    begin = names.index(after) + 1 if after in names else 0
    found: list[dict[str, Any]] = []
    while begin < len(names) and len(found) <= limit:
        chunk = names[begin : begin + 500]
        found += [each for each in await shown(chunk) if each is not None]
        begin += len(chunk)
    data = found[:limit]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, **ends, "has_more": len(found) > limit}
