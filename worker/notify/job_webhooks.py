"""Sends job.done and job.dead events to their subscribers: the webhook, and the callback of the job's tenant.

The script that ends a job writes one entry for each subscriber. The notifier's worker delivers each event at least
once, and a slow subscriber does not delay the others. An event keeps its `webhook-id`, so that a receiver can recognize
a repetition.
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
from producer.redis_server.cancelling import cancelled
from producer.results import result_commands, result_of
from producer.scripts import Command, although_full, ask_async, run_async
from worker.network import DIRECT, Network, authorization, without_password
from worker.notify.channels.webhook import TIMEOUT_SECONDS, signed
from worker.notify.ssrf_guard import NotPublic, check_literal, check_name, session

log = logging.getLogger("failover.worker")

EVERYBODY = "*"  # the webhook's name among subscribers; no tenant can have this name
AT_ONCE = 32
POLL_SECONDS = 0.5
REGISTER_SECONDS = 60.0
WANTED_SECONDS = 7 * 86_400  # events of a subscriber are kept so long after the last worker registered it
BACKOFF_SECONDS = (1.0, 300.0)
GIVEN_UP_MS = 86_400_000  # age of an event that is not sent any more
LARGEST_COMPLETION = 256 * 1024  # bytes; a receiver fetches a larger one by the job id


@dataclass(frozen=True)
class Subscriber:
    """A receiver of job events. `private_allowed`: its URL may lead to private addresses."""

    name: str
    url: str
    secret: str
    private_allowed: bool = False

    def __repr__(self) -> str:
        return f"Subscriber({self.name})"


class Deliveries:
    """Delivery by one worker, while `leads()` is true."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        subscribers: Sequence[Subscriber],
        leads: Callable[[], bool],
        network: Network = DIRECT,
    ) -> None:
        self._client, self._leads, self._network = client, leads, network
        self._subscribers = {subscriber.name: subscriber for subscriber in subscribers}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._pauses: dict[str, float] = {}  # seconds, by subscriber
        self._not_before: dict[str, float] = {}  # monotonic
        self._registered_at = -REGISTER_SECONDS  # monotonic

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                if self._leads() and self._subscribers:
                    with contextlib.suppress(RedisError):  # the rest of the worker logs it
                        await self._start()
        finally:
            await cancelled(self._busy.values())
            for open_session in self._sessions.values():
                await open_session.close()

    async def _start(self) -> None:
        """Register the subscribers, and start a delivery for each one that has events."""
        if time.monotonic() - self._registered_at > REGISTER_SECONDS:
            flat = [word for name in self._subscribers for word in (name, "1")]
            commands: list[Command] = [
                ("DEL", keyspace.SUBSCRIBERS),
                although_full(("HSET", keyspace.SUBSCRIBERS, *flat)),
            ]
            commands.append(("EXPIRE", keyspace.SUBSCRIBERS, WANTED_SECONDS))
            await ask_async(self._client, [("MULTI",), *commands, ("EXEC",)])
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
        """Send every waiting event once. A refused event does not block later ones; it is sent again after a growing
        backoff."""
        outbox, name, after, left = keyspace.outbox(subscriber.name), subscriber.name, "-", 0
        try:
            while self._leads():
                (entries,) = await ask_async(self._client, [("XRANGE", outbox, after, "+", "COUNT", AT_ONCE)])
                if not entries:
                    break
                failures = await self._posted(subscriber, [fields for _, fields in entries])
                done = [entry_id for (entry_id, _), why in zip(entries, failures, strict=True) if why is None]
                await ask_async(self._client, [("XDEL", outbox, *done)] if done else [])
                after, left = "(" + entries[-1][0].decode(), left + len(failures) - len(done)
                if left:
                    facts = {"subscriber": name, "why": next((why for why in failures if why is not None), "")}
                    log.warning("a subscriber does not accept its events", extra=facts)
                if not done:
                    break  # it accepts nothing now
        except RedisError as error:
            log.warning("events wait", extra={"subscriber": name, "error": str(error)})
            left = 1
        if left:
            self._pauses[name] = min(2 * self._pauses.get(name, BACKOFF_SECONDS[0] / 2), BACKOFF_SECONDS[1])
            self._not_before[name] = time.monotonic() + self._pauses[name]
        else:
            self._pauses.pop(name, None)

    async def _posted(self, subscriber: Subscriber, entries: Sequence[Mapping[bytes, bytes]]) -> list[str | None]:
        """For each entry None if it needs no further delivery, else why it was not accepted."""
        ids = [fields.get(b"job", b"").decode(errors="replace") for fields in entries]
        facts: list[Command] = [("HMGET", keyspace.job(job_id), JobField.TENANT, JobField.TYPE) for job_id in ids]
        results: list[Command] = [command for job_id in ids for command in result_commands(job_id)]
        replies = await run_async(self._client, [*facts, *results])
        jobs = [
            (job_id, replies[at], replies[len(ids) + 2 * at : len(ids) + 2 * at + 2]) for at, job_id in enumerate(ids)
        ]
        posts = (self._post(subscriber, fields, *each) for fields, each in zip(entries, jobs, strict=True))
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
            data = {**_event_data(job_id, facts, read), "at_ms": at_ms}
            return signed(f"{event}-{job_id}-{at_ms}", event, data, subscriber.secret)

        try:
            url, proxy = yarl.URL(subscriber.url), self._network.proxy_for(subscriber.url)
            if not subscriber.private_allowed:
                check_literal(url)
                if proxy is not None:
                    await check_name(url)
            session = self._session(subscriber)
            # a large result takes long, and this loop also runs the jobs
            body, headers = await asyncio.to_thread(prepared)
            more: dict[str, Any] = {"data": body, "headers": headers, "allow_redirects": False}
            if proxy is not None:
                more["proxy"] = without_password(proxy)
                if url.scheme == "https":
                    more["proxy_headers"] = authorization(proxy)
                else:
                    more["headers"] = headers | authorization(proxy)
            async with asyncio.timeout(TIMEOUT_SECONDS), session.post(url, **more) as reply:
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
            self._sessions[subscriber.name] = session(
                AT_ONCE,
                private_allowed=subscriber.private_allowed or self._network.proxy_for(subscriber.url) is not None,
                network=self._network,
            )
        return self._sessions[subscriber.name]


def _event_data(job_id: str, facts: Sequence[bytes | None], read: Sequence[Any]) -> dict[str, object]:
    """The data of an event. A job that expired or was requeued since then has its present state, or `status` unknown."""
    data: dict[str, object] = {"job_id": job_id}
    try:
        tenant, job_type = (value.decode(errors="replace") if value else None for value in facts)
        data |= {"tenant_id": tenant, "job_type": job_type}
        result = result_of(job_id, *read)
    except (ValueError, TypeError, KeyError, AttributeError):
        result = None  # written by a newer release, or not ours: the event is sent without its result
    if result is None:
        return {**data, "status": "unknown"}
    data |= result.model_dump(mode="json", exclude={"trail", "schema_version"}, exclude_none=True)
    if len(to_json(data.get("completion"))) > LARGEST_COMPLETION:
        data |= {"completion": None, "completion_omitted": True}
    return data
