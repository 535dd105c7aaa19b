"""One batch in Redis: its state, its counts and its times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from producer import keyspace
from producer.client import AsyncProducer
from producer.errors import FailoverError
from producer.exchange import sendable
from producer.scripts import Call, Command, Script, hold

_LUA = Path(__file__).parent / "lua"
MOVE = Script.load(_LUA, "move")
KEEP_SECONDS = 30 * 86400  # after its end
MOST_LISTED = 10_000
OPEN = ("validating", "in_progress", "finalizing", "cancelling")
TIMES = ("in_progress", "expires", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


class UnknownBatch(FailoverError):
    """No such batch, or another tenant's."""

    status, code = 404, "batch_not_found"

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"no batch has the id {batch_id!r:.200}: mistyped, or it ended more than 30 days ago")


@dataclass(frozen=True)
class Batch:
    """One batch. `fields`: those of its hash, as texts."""

    batch_id: str
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def tenant(self) -> str:
        return self.fields.get("tenant", "")

    @property
    def status(self) -> str:
        return self.fields["status"]

    @property
    def input_file_id(self) -> str:
        return self.fields["input_file_id"]

    @property
    def metadata(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.fields.get("metadata") or "{}")
        return found

    def number(self, name: str) -> int:
        return int(self.fields.get(name) or 0)

    def shown(self) -> dict[str, Any]:
        """OpenAI's batch object."""
        ended = {f"{name}_at": self.number(f"{name}_at") or None for name in TIMES}
        errors = json.loads(self.fields.get("errors") or "[]")
        return {
            "id": self.batch_id,
            "object": "batch",
            "endpoint": self.fields.get("endpoint"),
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.fields.get("completion_window"),
            "status": self.status,
            "output_file_id": self.fields.get("output_file_id") or None,
            "error_file_id": self.fields.get("error_file_id") or None,
            "created_at": self.number("created_at"),
            **ended,
            "request_counts": {name: self.number(name) for name in ("total", "completed", "failed")},
            "metadata": self.metadata or None,
        }


def new_batch_id() -> str:
    return f"batch_{uuid4().hex}"


def creating(batch: Batch) -> list[Command]:
    """The commands that create a batch and give it to the runners."""
    flat = [word for pair in batch.fields.items() for word in pair]
    listed = keyspace.batches_of(batch.tenant)
    return [
        ("HSET", keyspace.batch(batch.batch_id), *flat),
        ("ZADD", listed, batch.number("created_at"), batch.batch_id),
        ("ZREMRANGEBYRANK", listed, 0, -MOST_LISTED - 1),
        ("EXPIRE", listed, 2 * KEEP_SECONDS),
        ("SADD", keyspace.OPEN_BATCHES, batch.batch_id),
    ]


def moving(batch_id: str, states: Sequence[str], fields: Mapping[str, str | int]) -> Call:
    """Move a batch that is in one of `states`. Reply: 1, or 0 if it is in another one."""
    flat = [word for pair in fields.items() for word in pair]
    return MOVE.call([keyspace.batch(batch_id)], [f" {' '.join(states)} ", *flat])


def holding(batch_id: str, token: str, seconds: int) -> Call:
    """Take a batch for a runner, or keep it. Reply: 1 if it is the runner's."""
    return hold(keyspace.batch_runner(batch_id), token, seconds * 1000)


def ending(batch_id: str, fields: Mapping[str, str | int]) -> list[Command]:
    """The commands with which a batch ends."""
    flat = [word for pair in fields.items() for word in pair]
    key = keyspace.batch(batch_id)
    return [("HSET", key, *flat), ("EXPIRE", key, KEEP_SECONDS), ("SREM", keyspace.OPEN_BATCHES, batch_id)]


async def read(producer: AsyncProducer, batch_id: str, tenant: str | None) -> Batch:
    """Raises UnknownBatch, also for a batch of another tenant than `tenant`; ServiceUnavailable."""
    (batch,) = await read_many(producer, [batch_id])
    if batch is None or (tenant is not None and batch.tenant != tenant):
        raise UnknownBatch(batch_id)
    return batch


async def read_many(producer: AsyncProducer, batch_ids: Sequence[str]) -> list[Batch | None]:
    ids = list(map(sendable, batch_ids))
    replies = await producer.send([("HGETALL", keyspace.batch(batch_id)) for batch_id in ids])
    return [Batch(batch_id, _texts(reply)) if reply else None for batch_id, reply in zip(ids, replies, strict=True)]


def _texts(reply: Any) -> dict[str, str]:
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): value.decode(errors="replace") for name, value in pairs}
