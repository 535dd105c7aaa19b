"""job.done and job.dead, to those who asked for them: the webhook, and the callback of the job's tenant.

The script that ends a job writes one entry for each of them. The notifier's worker delivers, each subscriber at its own pace,
at least once: an event keeps its `webhook-id`, so that a receiver knows a second one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import redis.asyncio
import yarl
from pydantic_core import to_json
from redis.exceptions import RedisError

from producer import keyspace
from producer.keyspace import JobField
from producer.results import result_commands, result_of
from producer.scripts import Command, ask_async, run_async
from worker.notify.channels.webhook import TIMEOUT_SECONDS, signed
from worker.notify.ssrf_guard import NotPublic, check_literal, session

log = logging.getLogger("failover.worker")

EVERYBODY = "*"  # the webhook's name among subscribers; no tenant can be called so
AT_ONCE = 32
POLL_SECONDS = 0.5
REGISTER_SECONDS = 60.0
WANTED_SECONDS = 7 * 86_400  # for which events are kept of subscribers that no worker speaks of any more
BACKOFF_SECONDS = (1.0, 300.0)
GIVEN_UP_MS = 86_400_000
LARGEST_COMPLETION = 256 * 1024  # bytes; a larger one is fetched by its id


@dataclass(frozen=True)
class Subscriber:
    """Where the ends of jobs go. `private_allowed`: also to addresses of this house."""

    name: str
    url: str
    secret: str
    private_allowed: bool = False

    def __repr__(self) -> str:
        return f"Subscriber({self.name})"


class Deliveries:
    """One worker's; it delivers while `leads` says so."""

    def __init__(
        self, client: redis.asyncio.Redis, subscribers: Sequence[Subscriber], leads: Callable[[], bool]
    ) -> None:
        self._client, self._leads = client, leads
        self._subscribers = {subscriber.name: subscriber for subscriber in subscribers}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._pauses: dict[str, float] = {}  # seconds, by subscriber
        self._not_before: dict[str, float] = {}  # monotonic
        self._registered_at = -REGISTER_SECONDS  # monotonic

    async def run(self) -> None:
        """Deliver for ever."""
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                if self._leads() and self._subscribers:
                    with contextlib.suppress(RedisError):  # the rest of the worker tells of it
                        await self._start()
        finally:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)
            for open_session in self._sessions.values():
                await open_session.close()

    async def _start(self) -> None:
        """Say whose events are wanted, and see to everybody who has some."""
        if time.monotonic() - self._registered_at > REGISTER_SECONDS:
            flat = [word for name in self._subscribers for word in (name, "1")]
            words: list[Command] = [("DEL", keyspace.SUBSCRIBERS), ("HSET", keyspace.SUBSCRIBERS, *flat)]
            words.append(("EXPIRE", keyspace.SUBSCRIBERS, WANTED_SECONDS))
            await ask_async(self._client, [("MULTI",), *words, ("EXEC",)])
            self._registered_at = time.monotonic()
        self._busy = {name: task for name, task in self._busy.items() if not task.done()}
        now = time.monotonic()
        idle = [name for name in self._subscribers if name not in self._busy and self._not_before.get(name, 0) <= now]
        lengths = await run_async(self._client, [("XLEN", keyspace.outbox(name)) for name in idle]) if idle else []
        for name, length in zip(idle, lengths, strict=True):
            if isinstance(length, Exception):
                log.error("an outbox cannot be read", extra={"subscriber": name, "error": str(length)})
            elif length:
                self._busy[name] = asyncio.create_task(self._deliver(self._subscribers[name]))

    async def _deliver(self, subscriber: Subscriber) -> None:
        """Once through all that waits. What is not taken holds up nothing behind it, and is tried again later and later."""
        outbox, name, after, left = keyspace.outbox(subscriber.name), subscriber.name, "-", 0
        try:
            while self._leads():
                (entries,) = await ask_async(self._client, [("XRANGE", outbox, after, "+", "COUNT", AT_ONCE)])
                if not entries:
                    break
                said = await self._posted(subscriber, [fields for _, fields in entries])
                done = [entry_id for (entry_id, _), why in zip(entries, said, strict=True) if why is None]
                await ask_async(self._client, [("XDEL", outbox, *done)] if done else [])
                after, left = "(" + entries[-1][0].decode(), left + len(said) - len(done)
                if left:
                    facts = {"subscriber": name, "why": next((why for why in said if why is not None), "")}
                    log.warning("a subscriber does not take its events", extra=facts)
                if not done:
                    break  # it takes nothing now
        except RedisError as error:
            log.warning("events wait", extra={"subscriber": name, "error": str(error)})
            left = 1
        if left:
            self._pauses[name] = min(2 * self._pauses.get(name, BACKOFF_SECONDS[0] / 2), BACKOFF_SECONDS[1])
            self._not_before[name] = time.monotonic() + self._pauses[name]
        else:
            self._pauses.pop(name, None)

    async def _posted(self, subscriber: Subscriber, entries: Sequence[Mapping[bytes, bytes]]) -> list[str | None]:
        """For each entry None once it needs no further delivery, or why it was not taken."""
        ids = [fields.get(b"job", b"").decode(errors="replace") for fields in entries]
        facts: list[Command] = [("HMGET", keyspace.job(job_id), JobField.TENANT, JobField.TYPE) for job_id in ids]
        results: list[Command] = [command for job_id in ids for command in result_commands(job_id)]
        replies = await run_async(self._client, [*facts, *results])
        told = [
            (job_id, replies[at], replies[len(ids) + 2 * at : len(ids) + 2 * at + 2]) for at, job_id in enumerate(ids)
        ]
        posts = (self._post(subscriber, fields, *each) for fields, each in zip(entries, told, strict=True))
        return list(await asyncio.gather(*posts))

    async def _post(
        self,
        subscriber: Subscriber,
        fields: Mapping[bytes, bytes],
        job_id: str,
        facts: Sequence[bytes | None],
        read: Sequence[Any],
    ) -> str | None:
        event, at = fields.get(b"event", b"").decode(errors="replace"), fields.get(b"ms", b"")
        at_ms = int(at) if at.isdigit() else 0
        if time.time() * 1000 - at_ms > GIVEN_UP_MS:
            log.error("an event was given up after a day", extra={"subscriber": subscriber.name, "job": job_id})
            return None

        def prepared() -> tuple[bytes, dict[str, str]]:
            data = {**_told(job_id, facts, read), "at_ms": at_ms}
            return signed(f"{event}-{job_id}-{at_ms}", event, data, subscriber.secret)

        try:
            url = yarl.URL(subscriber.url)
            if not subscriber.private_allowed:
                check_literal(url)
            session = self._session(subscriber)
            body, headers = await asyncio.to_thread(prepared)  # a large result is work, and the loop is the jobs'
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                session.post(url, data=body, headers=headers, allow_redirects=False) as reply,
            ):
                return None if 200 <= reply.status < 300 else f"it answered {reply.status}"
        except TimeoutError:
            return f"no answer within {TIMEOUT_SECONDS:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            refused = error if isinstance(error, NotPublic) else getattr(error, "os_error", None)
            if isinstance(refused, NotPublic):
                return f"{refused} — CALLBACKS_MAY_BE_PRIVATE=true allows it"
            return f"it does not answer: {type(error).__name__}"

    def _session(self, subscriber: Subscriber) -> aiohttp.ClientSession:
        if subscriber.name not in self._sessions:
            self._sessions[subscriber.name] = session(AT_ONCE, private_allowed=subscriber.private_allowed)
        return self._sessions[subscriber.name]


def _told(job_id: str, facts: Sequence[bytes | None], read: Sequence[Any]) -> dict[str, object]:
    """What an event says of its job; of one that is past its retention, or requeued since, what is known now."""
    told: dict[str, object] = {"job_id": job_id}
    try:
        tenant, job_type = (value.decode(errors="replace") if value else None for value in facts)
        told |= {"tenant_id": tenant, "job_type": job_type}
        result = result_of(job_id, *read)
    except (ValueError, TypeError, KeyError, AttributeError):
        result = None  # of a newer release, or not ours: its end is told all the same
    if result is None:
        return {**told, "status": "unknown"}
    told |= result.model_dump(mode="json", exclude={"trail", "schema_version"}, exclude_none=True)
    if len(to_json(told.get("completion"))) > LARGEST_COMPLETION:
        told |= {"completion": None, "completion_omitted": True}
    return told
