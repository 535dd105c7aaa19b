"""The transport of all calls to providers: one pool of connections, through our proxy where there is one, and the resend of
a request that met a connection which the provider had just closed. No other file knows which library sends the bytes; only
its exceptions are known to local_trouble.py and http.py.

A provider may close an idle connection at the moment at which the next request is written on it (RFC 9112, 9.3 and 9.5). It
has read nothing of that request then. The request is sent again, once, on a connection of its own, if all of this holds:

- the connection was reused, so it stood idle before;
- no byte of an answer came: the failure is a hang-up or a reset, and no time-out;
- it failed within `RACE_SECONDS` of the reuse: the closing was on its way already. A provider that read the request and
  broke down later looks the same, but later; that attempt stays ambiguous.

The request keeps its Idempotency-Key. What fails on the new connection is judged as it is.
"""

from __future__ import annotations

import asyncio
import errno
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from worker.network import Network

RACE_SECONDS = 1.0  # more than one way of a packet around the earth
KEEP_ALIVE_SECONDS = 30.0
LARGEST_HEADER_BYTES = 65_536  # of one header; some gateways put their debugging into one
MOST_HEADERS = 1000
_HUNG_UP = frozenset({errno.ECONNRESET, errno.EPIPE})
_reused_at: ContextVar[list[float] | None] = ContextVar("reused_at", default=None)


class NotConnected(Exception):
    """No connection within the time to connect; nothing was sent. Not a TimeoutError, which is the caller's own."""


class ProxyUnusable(Exception):
    """Our own proxy does not let the call out. It has sent nothing on."""


class Response:
    """The head of an answer, and its body as it comes. Whoever has one closes it."""

    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = _headers(response)

    async def chunks(self, pause: Callable[[], float] = lambda: 0.0) -> AsyncIterator[bytes]:
        """The body without its content encoding. `pause`: seconds for which bytes gather in the kernel before the next chunk,
        asked after each one; a wake-up for each token costs more CPU than the rest of a job. Raises what the library raises."""
        content = self._response.content
        while chunk := await content.readany():
            yield chunk
            if (seconds := pause()) and (connection := self._response.connection) is not None:
                protocol = connection.protocol
                if protocol is not None:
                    protocol.pause_reading()
                    await asyncio.sleep(_until_tick(asyncio.get_running_loop().time(), seconds))
                    protocol.resume_reading()

    def close(self) -> None:
        """Give the connection back if the body was read to its end; end it if not."""
        self._response.release()


def _until_tick(now: float, at_most: float) -> float:
    """At least three quarters of `at_most` seconds, so that streams wake at the same few moments: what many of them have to
    do in one turn of the event loop costs half of what it costs one by one."""
    tick = at_most / 4
    return math.floor((now + at_most) / tick) * tick - now


class Transport:
    """Made on the loop that uses it, and closed there. `most`: connections at once. Whoever calls cuts it by wall clock:
    only the time to connect has a limit here."""

    def __init__(self, most: int, network: Network, connect_seconds: float) -> None:
        self._network = network
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
        self._most = most
        self._pool: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def post(self, url: str, headers: Mapping[str, str], content: bytes) -> Response:
        """Send it, once, or once more under the rule of this file. Raises ProxyUnusable and what the library raises."""
        if self._pool is None:
            self._pool = _session(self._most, self._network, self._timeout, keep=True)
        reused_at = list[float]()
        token = _reused_at.set(reused_at)
        try:
            return await self._send(self._pool, "POST", url, headers, content)
        except aiohttp.ClientError as error:
            if not (reused_at and time.monotonic() - reused_at[-1] <= RACE_SECONDS and _hung_up(error)):
                raise
        finally:
            _reused_at.reset(token)
        return await self._send(self._alone(), "POST", url, headers, content)

    async def get(self, url: str, headers: Mapping[str, str]) -> Response:
        """Ask on a connection of its own. Raises as `post`."""
        return await self._send(self._alone(), "GET", url, headers, None)

    def _alone(self) -> aiohttp.ClientSession:
        if self._fresh is None:
            self._fresh = _session(self._most, self._network, self._timeout, keep=False)
        return self._fresh

    async def _send(
        self, session: aiohttp.ClientSession, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> Response:
        proxy = self._network.proxy_for(url)
        try:
            response = await session.request(
                method,
                _url(url),
                headers=headers,
                data=content,
                allow_redirects=False,
                proxy=proxy,
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise (ProxyUnusable("it cannot be reached") if proxy else NotConnected(str(error))) from error
        except aiohttp.ClientConnectorDNSError as error:
            if proxy:  # the only host that is looked up
                raise ProxyUnusable("it cannot be reached") from error
            raise
        if proxy and response.status == 407:
            response.release()
            raise ProxyUnusable("it wants a password (407)")
        return Response(response)

    async def close(self) -> None:
        for session in (self._pool, self._fresh):
            if session is not None:
                await session.close()


@lru_cache(maxsize=1024)
def _url(url: str) -> URL:
    return URL(url)


def _headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    """By lower-case name; what stands in several lines is one list (RFC 9110, 5.2)."""
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _hung_up(error: aiohttp.ClientError) -> bool:
    """Whether the connection ended before the first byte of an answer."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return not isinstance(error.message, aiohttp.http.RawResponseMessage)  # the head of an answer
    if not isinstance(error, aiohttp.ClientOSError) or isinstance(error, aiohttp.ClientConnectorError):
        return False
    closing = isinstance(error.__cause__, aiohttp.ClientConnectionResetError)  # it knew before it wrote a byte
    return closing or error.errno in _HUNG_UP


class _Connector(aiohttp.TCPConnector):
    """Notes in `_reused_at` when a call gets a connection that has served another one. (The library's own tracing does so
    too, at six more awaits a call.)"""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seen = WeakSet[ResponseHandler]()

    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Connection:  # noqa: ASYNC109 - its own
        connection = await super().connect(req, traces, timeout)
        if (protocol := connection.protocol) in self._seen:
            if (reused_at := _reused_at.get()) is not None:
                reused_at.append(time.monotonic())
        elif protocol is not None:
            self._seen.add(protocol)
        return connection


def _session(most: int, network: Network, timeout: aiohttp.ClientTimeout, *, keep: bool) -> aiohttp.ClientSession:
    """Without a cookie jar: jobs and tenants share nothing. `keep`: connections are used again."""
    connector = _Connector(
        limit=most,
        ssl=network.trust(),
        resolver=aiohttp.ThreadedResolver(),  # the system's, whose errors local_trouble.py knows
        **({"keepalive_timeout": KEEP_ALIVE_SECONDS} if keep else {"force_close": True}),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=timeout,
        max_line_size=LARGEST_HEADER_BYTES,
        max_field_size=LARGEST_HEADER_BYTES,
        max_headers=MOST_HEADERS,
    )
