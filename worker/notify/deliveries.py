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

import aiohttp
import redis.asyncio
from redis.exceptions import RedisError

from producer import keyspace
from producer.job import JobResult
from producer.results import result_commands, result_of
from producer.scripts import Command, ask_async
from worker.notify.egress import NotPublic, check_literal, session
from worker.notify.webhook import TIMEOUT_SECONDS, signed

log = logging.getLogger("failover.worker")

EVERYBODY = "*"  # the webhook's name among subscribers; no tenant can be called so
AT_ONCE = 32
POLL_SECONDS = 0.5
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
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._registered = False

    async def run(self) -> None:
        """Deliver for ever."""
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                if self._leads():
                    with contextlib.suppress(RedisError):  # the rest of the worker tells of it
                        await self._start()
                else:
                    self._registered = False
        finally:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)
            for open_session in self._sessions.values():
                await open_session.close()

    async def _start(self) -> None:
        """Say whose events are wanted, and see to everybody who has some."""
        if not self._registered:
            words: list[Command] = [("DEL", keyspace.SUBSCRIBERS)]
            flat = [word for name in self._subscribers for word in (name, "1")]
            words += [("HSET", keyspace.SUBSCRIBERS, *flat)] if flat else []
            await ask_async(self._client, [("MULTI",), *words, ("EXEC",)])
            self._registered = True
        self._busy = {name: task for name, task in self._busy.items() if not task.done()}
        idle = [name for name in self._subscribers if name not in self._busy]
        lengths = await ask_async(self._client, [("XLEN", keyspace.outbox(name)) for name in idle])
        for name, length in zip(idle, lengths, strict=True):
            if length:
                self._busy[name] = asyncio.create_task(self._deliver(self._subscribers[name]))

    async def _deliver(self, subscriber: Subscriber) -> None:
        """Until nothing is left. A subscriber that takes nothing is left alone for longer and longer."""
        outbox, pause = keyspace.outbox(subscriber.name), BACKOFF_SECONDS[0]
        while self._leads():
            try:
                (entries,) = await ask_async(self._client, [("XRANGE", outbox, "-", "+", "COUNT", AT_ONCE)])
                if not entries:
                    return
                outcomes = await self._posted(subscriber, entries)
                done = [entry_id for (entry_id, _), said in zip(entries, outcomes, strict=True) if said is None]
                await ask_async(self._client, [("XDEL", outbox, *done)] if done else [])
            except RedisError:
                done, outcomes = [], ["redis is away"]
            if done:
                pause = BACKOFF_SECONDS[0]
            if len(done) < len(outcomes):
                said = next(said for said in outcomes if said is not None)
                log.warning("a subscriber does not take its events", extra={"subscriber": subscriber.name, "why": said})
                await asyncio.sleep(pause)
                pause = min(pause * 2, BACKOFF_SECONDS[1])

    async def _posted(
        self, subscriber: Subscriber, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]
    ) -> list[str | None]:
        """For each entry None once it needs no further delivery, or why it was not taken."""
        ids = [fields[b"job"].decode() for _, fields in entries]
        replies = await ask_async(self._client, [command for job_id in ids for command in result_commands(job_id)])
        results = [result_of(job_id, replies[2 * i], replies[2 * i + 1]) for i, job_id in enumerate(ids)]
        posts = (self._post(subscriber, fields, result) for (_, fields), result in zip(entries, results, strict=True))
        return list(await asyncio.gather(*posts))

    async def _post(
        self, subscriber: Subscriber, fields: Mapping[bytes, bytes], result: JobResult | None
    ) -> str | None:
        job_id, event, at_ms = fields[b"job"].decode(), fields[b"event"].decode(), int(fields[b"ms"])
        if time.time() * 1000 - at_ms > GIVEN_UP_MS:
            log.error("an event was given up after a day", extra={"subscriber": subscriber.name, "job": job_id})
            return None
        data = {"job_id": job_id, "at_ms": at_ms, **_told(result)}
        body, headers = signed(f"{event}-{job_id}-{at_ms}", event, data, subscriber.secret)
        try:
            if not subscriber.private_allowed:
                check_literal(subscriber.url)
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                self._session(subscriber).post(
                    subscriber.url, data=body, headers=headers, allow_redirects=False
                ) as reply,
            ):
                return None if 200 <= reply.status < 300 else f"it answered {reply.status}"
        except TimeoutError:
            return f"no answer within {TIMEOUT_SECONDS:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            refused = error if isinstance(error, NotPublic) else getattr(error, "os_error", None)
            return str(refused) if isinstance(refused, NotPublic) else f"it does not answer: {type(error).__name__}"

    def _session(self, subscriber: Subscriber) -> aiohttp.ClientSession:
        allowed = subscriber.private_allowed
        if allowed not in self._sessions:
            self._sessions[allowed] = session(private_allowed=allowed)
        return self._sessions[allowed]


def _told(result: JobResult | None) -> dict[str, object]:
    """What an event says of its job; of one that is past its retention, or requeued since, what is known now."""
    if result is None:
        return {"status": "unknown"}
    told = result.model_dump(mode="json", exclude={"trail", "schema_version"}, exclude_none=True)
    if len(str(told.get("completion", ""))) > LARGEST_COMPLETION:
        told |= {"completion": None, "completion_omitted": True}
    return told
