"""The transport of all calls to providers: one pool of connections, through our proxy where there is one, and the resend of
a request that met a connection which the provider had just closed.

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
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from worker.network import Network

RACE_SECONDS = 1.0  # more than one way of a packet around the earth
KEEP_ALIVE_SECONDS = 30.0
LARGEST_HEADER_BYTES = 65_536  # of one header; some gateways put their debugging into one
_HUNG_UP = frozenset({errno.ECONNRESET, errno.EPIPE})
_reused_at: ContextVar[list[float] | None] = ContextVar("reused_at", default=None)


class Transport(httpx.AsyncBaseTransport):
    """Made on the loop that uses it, and closed there. `most`: connections at once."""

    def __init__(self, most: int, network: Network) -> None:
        self._network = network
        self._pool = _Sessions(lambda: _session(most, network, keep=True), network)
        self._fresh = _Sessions(lambda: _session(most, network, keep=False), network)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        clock, reused_at = asyncio.get_running_loop().time, list[float]()
        token = _reused_at.set(reused_at)
        try:
            return await self._pool.send(request)
        except httpx.HTTPError as error:
            if not (reused_at and clock() - reused_at[-1] <= RACE_SECONDS and _hung_up(error)):
                raise
        finally:
            _reused_at.reset(token)
        return await self._fresh.send(request)

    async def aclose(self) -> None:
        await self._pool.close()
        await self._fresh.close()


def _hung_up(error: httpx.HTTPError) -> bool:
    """Whether the connection ended before the first byte of an answer."""
    cause = error.__cause__
    if isinstance(cause, aiohttp.ServerDisconnectedError):
        return not isinstance(cause.message, aiohttp.http.RawResponseMessage)  # the head of an answer
    return (
        isinstance(cause, aiohttp.ClientOSError)
        and not isinstance(cause, aiohttp.ClientConnectorError)
        and cause.errno in _HUNG_UP
    )


class _Sessions:
    """One client session, used directly and through each proxy."""

    def __init__(self, session: Callable[[], aiohttp.ClientSession], network: Network) -> None:
        self._make, self._network = session, network
        self._session: aiohttp.ClientSession | None = None
        self._by_proxy: dict[str | None, AiohttpTransport] = {}

    async def send(self, request: httpx.Request) -> httpx.Response:
        proxy = self._network.proxy_for(str(request.url))
        transport = self._by_proxy.get(proxy) or self._transport(proxy)
        if proxy is None:
            return await transport.handle_async_request(request)
        try:
            response = await transport.handle_async_request(request)
        except httpx.ConnectTimeout as error:
            if isinstance(error.__cause__, aiohttp.ClientConnectorDNSError | aiohttp.ConnectionTimeoutError):
                raise httpx.ProxyError("it cannot be reached") from error  # the only host that is looked up
            raise
        if response.status_code == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
            await response.aclose()
            raise httpx.ProxyError("it wants a password (407)")
        return response

    def _transport(self, proxy: str | None) -> AiohttpTransport:
        if self._session is None:
            self._session = self._make()
        url = httpx.Proxy(proxy) if proxy else None
        transport = AiohttpTransport(verify=self._network.trust(), client=self._session, proxy=url)
        self._by_proxy[proxy] = transport
        return transport

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _session(most: int, network: Network, *, keep: bool) -> aiohttp.ClientSession:
    """As httpx-aiohttp would make it, but without a cookie jar: jobs and tenants share nothing. `keep`: connections are
    used again."""
    connector = aiohttp.TCPConnector(
        limit=most,
        ssl=network.trust(),
        resolver=aiohttp.ThreadedResolver(),  # the system's, whose errors local_trouble.py knows
        **({"keepalive_timeout": KEEP_ALIVE_SECONDS} if keep else {"force_close": True}),
    )
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=LARGEST_HEADER_BYTES,
        max_field_size=LARGEST_HEADER_BYTES,
        trace_configs=[trace] if keep else None,
    )


async def _note_reuse(_session: aiohttp.ClientSession, _context: SimpleNamespace, _params: Any) -> None:
    reused_at = _reused_at.get()
    if reused_at is not None:
        reused_at.append(asyncio.get_running_loop().time())
