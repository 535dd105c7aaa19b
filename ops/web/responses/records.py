"""What Redis keeps of a response beside its job: the request, so that it can be read again and continued."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import from_json, to_json

from ops.web.responses.items import messages_of
from producer import keyspace
from producer.client import AsyncProducer
from producer.errors import FailoverError, UnknownJob
from producer.exchange import sendable
from producer.job import JobResult, JobStatus
from producer.policy import JobPolicy
from producer.scripts import Command

PREFIX = "resp_"
LONGEST_CONVERSATION = 500  # responses that one continues


class UnknownResponse(FailoverError):
    """No such response, or another tenant's."""

    status, code = 404, "response_not_found"

    def __init__(self, response_id: str) -> None:
        super().__init__(
            f"no response has the id {response_id!r:.200}: mistyped, deleted, not stored, or past its retention"
        )


@dataclass(frozen=True)
class Record:
    """One response. `asked`: its request's body. `created_at`: Unix seconds."""

    response_id: str
    tenant: str
    created_at: int
    asked: Mapping[str, Any]

    @property
    def job_id(self) -> str:
        return self.response_id.removeprefix(PREFIX)

    @property
    def previous(self) -> str | None:
        return self.asked.get("previous_response_id")

    def without_input(self) -> Record:
        """What a response repeats of its request: who waits for an answer does not keep megabytes of images meanwhile."""
        return replace(self, asked={name: value for name, value in self.asked.items() if name != "input"})


def writing(record: Record, policy: JobPolicy) -> list[Command]:
    """The commands that keep a record as long as its job can be read."""
    key = keyspace.response(record.response_id)
    asked = zlib.compress(to_json(record.asked, inf_nan_mode="null"), 1)
    fields = ("tenant", record.tenant, "created_at", record.created_at, "asked", asked)
    seconds = int(policy.expires_after_seconds + policy.keep_results_seconds)
    return [("HSET", key, *fields), ("EXPIRE", key, seconds)]


async def read(producer: AsyncProducer, response_id: str, tenant: str | None) -> Record:
    """Raises UnknownResponse, also for a response of another tenant than `tenant`; ServiceUnavailable."""
    key = keyspace.response(sendable(response_id))
    ((owner, created_at, asked),) = await producer.send([("HMGET", key, "tenant", "created_at", "asked")])
    if asked is None or owner is None or (tenant is not None and owner.decode() != tenant):
        raise UnknownResponse(response_id)
    return Record(response_id, owner.decode(), int(created_at), from_json(zlib.decompress(asked)))


async def delete(producer: AsyncProducer, record: Record) -> None:
    await producer.send([("DEL", keyspace.response(record.response_id))])


async def conversation(producer: AsyncProducer, response_id: str | None, tenant: str) -> list[dict[str, Any]]:
    """The messages of a response and of those before it, each with its answer, the oldest first. Raises UnknownResponse."""
    turns: list[list[dict[str, Any]]] = []
    while response_id is not None and len(turns) < LONGEST_CONVERSATION:
        record = await read(producer, response_id, tenant)
        try:
            answer = _answer(await producer.fetch(record.job_id))
        except UnknownJob:
            raise UnknownResponse(response_id) from None
        turns.append([*messages_of(record.asked.get("input")), *answer])
        response_id = record.previous
    return [message for turn in reversed(turns) for message in turn]


def _answer(result: JobResult) -> list[dict[str, Any]]:
    """The answer as a message of the next request; a response that is not done yet has none."""
    if result.status is not JobStatus.DONE or not result.completion:
        raise NotDone(PREFIX + result.job_id, str(result.status))
    message = result.completion["choices"][0]["message"]
    return [{"role": "assistant", **{name: value for name, value in message.items() if value is not None}}]


class NotDone(FailoverError):
    """A response that has no answer cannot be continued."""

    status, code = 400, "response_not_done"

    def __init__(self, response_id: str, how: str) -> None:
        super().__init__(f"the response {response_id} is {how}: only one with an answer can be continued")
