"""One HTTP call to a provider, whole or streamed, whatever the dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import aiohttp
from pydantic_core import from_json, to_json

from worker import memory
from worker.errors.catalog import is_success
from worker.errors.classify import Broke, Broken, Reply
from worker.providers.assembly import StreamedAnswer
from worker.providers.live_reader import CUT, SHORTEST_SECRET, LiveReader
from worker.providers.local_trouble import local_trouble
from worker.providers.message_pieces import repaired_all
from worker.providers.sse import BOM, Events, first_json, looks_like_events, without_pings
from worker.providers.transport import NotConnected, ProxyUnusable, Response, Transport
from worker.routes.route import Route

SMALL_ANSWER_BYTES = 64 * 1024  # nobody counts the memory of shorter ones
STREAM_OVERHEAD = 8  # bytes of a stream per byte of its answer, at most
LAST_WORDS_SECONDS = 2.0  # for [DONE] after the last finish_reason and the usage
LATE_USAGE_SECONDS = 10.0  # for the usage after the last finish_reason: without it the call's cost is not known
GATHER_SECONDS = 0.1  # between two looks at a stream that has begun: nobody waits for its single tokens
LIVE_GATHER_SECONDS = 0.05  # the same where somebody reads along
LONGEST_TEXT = 16_384  # bytes of a body that is not JSON, for its words
SENDING_ERRORS = (aiohttp.ClientError, OSError, ProxyUnusable)  # TimeoutError is an OSError


@dataclass(frozen=True)
class ProviderRequest:
    """One attempt: what to send where, with which key, and for how long (wall clock).

    `first_token_seconds` set: the answer is streamed, and no silence in it is longer than that. `dropped`: the dialect tells
    here what it could not say as the body has it. `live`: gets the answer's text while it is streamed.
    """

    route: Route
    key: str = field(repr=False)
    secrets: Sequence[str] = field(default=(), repr=False, kw_only=True)  # all keys that an answer must not repeat
    body: Mapping[str, Any]
    idempotency_key: str
    seconds: float
    first_token_seconds: float | None = None
    prompt_caching: bool = True
    dropped: list[str] = field(default_factory=list)
    live: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Spoken:
    """A request in a dialect, and how its answer is read: a stream by `assembly`, a whole one by `read`."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    assembly: Callable[[], StreamedAnswer]
    read: Callable[[Any], Any] = lambda body: body


def unsayable(error: Exception) -> Reply:
    """A body that cannot be said in the route's dialect: nothing was sent, and no route is to blame. Another may say it."""
    told = f"the job has no counterpart in this route's dialect: {type(error).__name__} {error}"
    return Reply(400, {}, {"error": {"code": "no_counterpart", "message": told[:300]}})


async def call(transport: Transport, wanted: ProviderRequest, spoken: Spoken) -> Reply | Broken:
    """POST it, within the attempt's time."""
    streams = wanted.first_token_seconds is not None
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream, application/json" if streams else "application/json",
        "user-agent": "failover-worker",
        "idempotency-key": wanted.idempotency_key,
        **spoken.headers,
    }
    try:
        content = to_json(spoken.body)
    except (ValueError, RecursionError) as error:
        return unsayable(error)
    send = partial(transport.post, f"{wanted.route.base_url}{spoken.path}", headers, content)
    if streams:
        return await _streamed(send, wanted, spoken)
    try:
        async with asyncio.timeout(wanted.seconds) as limit:
            response = await send()
            try:
                return await _whole(response, limit, wanted, spoken)
            finally:
                response.close()
    except TimeoutError:
        return Broken(Broke.SILENT, f"no whole answer within {wanted.seconds:.1f} s")
    except SENDING_ERRORS as error:
        return broken(error)


async def _whole(response: Response, limit: asyncio.Timeout, wanted: ProviderRequest, spoken: Spoken) -> Reply | Broken:
    """The body in one piece, unless it is longer than the route allows."""
    chunks, size, most = [], 0, wanted.route.entry.max_answer_bytes
    try:
        async for chunk in response.chunks():
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                return Broken(Broke.TOO_LONG, f"an answer of more than {most} bytes (maxAnswerBytes)")
            await _memory_for(chunk, size, limit)
    except aiohttp.ClientError:
        if is_success(response.status):
            raise
        # the status and its headers say what to do, whatever became of the words
    return read_whole(response.status, response.headers, b"".join(chunks), wanted.secrets, spoken)


async def _memory_for(chunk: bytes, size: int, limit: asyncio.Timeout) -> None:
    """Wait until there is memory for the chunk. The provider's time stands still meanwhile: the limit is ours. `size`: of the
    answer so far."""
    hold = memory.current.get() if size > SMALL_ANSWER_BYTES else None
    if hold is None or (room := hold.grow(len(chunk))) is None:
        return
    ends, began = limit.when(), asyncio.get_running_loop().time()
    limit.reschedule(None)
    await room
    if ends is not None:
        limit.reschedule(ends + asyncio.get_running_loop().time() - began)


def read_whole(
    status: int, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], spoken: Spoken
) -> Reply | Broken:
    """A body as its bytes say what it is: JSON, events that nobody asked for, or something else."""
    raw = _without_keys(body, secrets).removeprefix(BOM)
    if is_success(status) and looks_like_events(raw):
        return _read_events(headers, raw, secrets, spoken)
    raw = without_pings(raw)
    parsed = _json(raw)
    if parsed is None and raw:
        return Reply(status, headers, None, text=raw[:LONGEST_TEXT].decode("utf-8", "replace"))
    parsed = _clean(parsed, raw, secrets)
    return Reply(status, headers, spoken.read(parsed) if is_success(status) else parsed)


def _read_events(headers: Mapping[str, str], raw: bytes, secrets: Sequence[str], spoken: Spoken) -> Reply | Broken:
    """Events that came in one piece."""
    assembly, events = spoken.assembly(), Events()
    for data in (*events.feed(raw), *events.end()):
        assembly.add(data)
        if assembly.over:
            break
    return _assembled(headers, assembly, None, secrets)


def _without_keys(raw: bytes, keys: Sequence[str]) -> bytes:
    """What a provider echoes of our headers must not reach the result."""
    for key in keys:
        if len(key) >= SHORTEST_SECRET:
            raw = raw.replace(key.encode(), CUT.encode())
    return raw


def _clean(body: Any, raw: bytes, keys: Sequence[str]) -> Any:
    """The body without keys that were written with escapes, or came in pieces."""
    if body is None or not (b"\\" in raw or not raw) or not any(len(key) >= SHORTEST_SECRET for key in keys):
        return body
    written = to_json(body)
    cleaned = _without_keys(written, keys)
    return body if cleaned == written else from_json(cleaned)


async def _streamed(send: Callable[[], Awaitable[Response]], wanted: ProviderRequest, spoken: Spoken) -> Reply | Broken:
    """The stream, assembled. Whoever sends an error or an answer in one piece all the same is read so.

    Cut, stalled or late, it is Broken, unless every choice had its finish_reason by then.
    """
    clock = asyncio.get_running_loop().time
    silence, end = wanted.first_token_seconds or wanted.seconds, clock() + wanted.seconds
    assembly = spoken.assembly()
    response: Response | None = None
    broke: Reply | Broken | None = None
    try:
        async with asyncio.timeout_at(min(clock() + silence, end)) as limit:
            response = await send()
            if not is_success(response.status) or "text/event-stream" not in response.headers.get("content-type", ""):
                limit.reschedule(end)
                return await _whole(response, limit, wanted, spoken)
            broke = await _assemble(response, assembly, limit, silence, end, wanted, spoken)
    except TimeoutError:
        if clock() >= end:
            broke = Broken(Broke.SILENT, f"no whole answer within {wanted.seconds:.1f} s")
        elif assembly.began:
            broke = Broken(Broke.STALLED, f"the stream fell silent for {silence:.1f} s")
        else:
            broke = Broken(Broke.NO_TOKEN, f"no token within {silence:.1f} s")
    except SENDING_ERRORS as error:
        if response is None:
            return broken(error)
        cut = broken(error)
        broke = cut if cut.how is Broke.LOST else Broken(Broke.CUT, cut.detail)
    finally:
        if response is not None:
            response.close()
    if response is None:
        return broke or Broken(Broke.CUT, "the stream ended without a finish_reason")
    if isinstance(broke, Reply):
        return broke
    answer = _assembled(response.headers, assembly, broke, wanted.secrets)
    return replace(answer, first_token_at=assembly.began_at) if isinstance(answer, Reply) else answer


def _assembled(
    headers: Mapping[str, str], assembly: StreamedAnswer, broke: Broken | None, secrets: Sequence[str]
) -> Reply | Broken:
    """What a stream that is over was. Cut, stalled or late, it is Broken, unless nothing of the answer is missing."""
    error = assembly.error or (None if assembly.whole else assembly.doubt)
    if error is not None:
        return Reply(200, headers, _clean(error, b"", secrets))
    if not assembly.whole:
        unread = f"; what could not be read: {assembly.unread}" if assembly.unread else ""
        return broke or Broken(Broke.CUT, f"the stream ended without a finish_reason{unread}")
    note = f"{assembly.skipped} events of the stream could not be read" if assembly.skipped else ""
    return Reply(200, headers, _clean(assembly.completion(), b"", secrets), note)


async def _assemble(
    response: Response,
    assembly: StreamedAnswer,
    limit: asyncio.Timeout,
    silence: float,
    end: float,
    wanted: ProviderRequest,
    spoken: Spoken,
) -> Reply | Broken | None:
    """Until [DONE], an error or the stream's end; each token gives the next one `silence` seconds. A body that says it is a
    stream and is none is read as what it is."""
    clock = asyncio.get_running_loop().time
    events, size, head, most = Events(), 0, b"", wanted.route.entry.max_answer_bytes
    reader = LiveReader(wanted.live, wanted.secrets)
    pause = LIVE_GATHER_SECONDS if wanted.live else GATHER_SECONDS
    async for chunk in response.chunks(lambda: pause if assembly.began and not assembly.finished else 0.0):
        size += len(chunk)
        if size > STREAM_OVERHEAD * most:
            return Broken(Broke.TOO_LONG, f"a stream of more than {STREAM_OVERHEAD} x {most} bytes (maxAnswerBytes)")
        await _memory_for(chunk, size, limit)
        if not assembly.began and len(head) < most:
            head += chunk
        progress = False
        for data in events.feed(chunk):  # also what comes after [DONE]: some send the usage there
            progress = assembly.add(data) or progress
        if assembly.over:
            return None
        if progress:
            reader.follow(assembly.texts)
            last_words = LAST_WORDS_SECONDS if assembly.has_usage else LATE_USAGE_SECONDS
            limit.reschedule(min(clock() + (last_words if assembly.finished else silence), end))
    for data in events.end():
        assembly.add(data)
        if assembly.over:
            return None
    if not assembly.began and assembly.error is None and head and not looks_like_events(head):
        return read_whole(200, response.headers, head, wanted.secrets, spoken)
    return None


def _json(raw: bytes) -> Any:
    """None for what is not JSON, or nested so deeply that the result around it could not be read again. A broken byte, a raw
    tab or something after its end is no reason to lose a whole answer."""
    try:
        return from_json(b"[[" + raw + b"]]")[0][0]
    except (ValueError, IndexError):
        pass
    if not raw.lstrip().startswith((b"{", b"[")):
        return None
    try:
        return from_json(b"[[" + to_json(repaired_all(first_json(raw))) + b"]]")[0][0]
    except (ValueError, IndexError, RecursionError):
        return None


def broken(error: Exception) -> Broken:
    """Whether the request can have been sent decides whether replaying it is safe."""
    if (trouble := local_trouble(error)) is not None:
        return Broken(Broke.LOST if trouble.sent else Broke.LOCAL, trouble.words)
    detail = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, aiohttp.ClientConnectorError | NotConnected):
        return Broken(Broke.UNREACHABLE, detail)
    if isinstance(error, TimeoutError):
        return Broken(Broke.SILENT, detail)
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return Broken(Broke.GARBLED, detail)
    return Broken(Broke.RESET, detail)
