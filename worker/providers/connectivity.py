"""Whether a route can be reached and takes its key, asked without a billed call: its list of models.

It is asked through the worker's own client, so through the same proxy, with the same trust.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import aiohttp

from worker.errors.classify import Broke
from worker.network import DIRECT, Network
from worker.providers.anthropic.request import VERSION, path_of
from worker.providers.certificate import issuer_of
from worker.providers.http import SENDING_ERRORS, broken
from worker.providers.transport import Transport
from worker.routes.route import Route

TIMEOUT_SECONDS = 5.0
AT_ONCE = 8


class Reached(StrEnum):
    """What asking a route came to."""

    OK = "ok"
    KEY_REFUSED = "key refused"
    NO_MODELS = "no models"  # 404: a gateway without such a list, or a wrong path in its baseUrl
    LOCAL = "local"  # trouble of this machine, or of our proxy
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Found:
    """What a route answered. `detail`: in words. `address`: what was asked."""

    how: Reached
    detail: str
    address: str = ""


def reach(routes: Sequence[Route], network: Network = DIRECT) -> list[Found]:
    """What each route answers, all asked at once."""

    async def go() -> list[Found]:
        places = asyncio.Semaphore(AT_ONCE)
        transport = Transport(AT_ONCE, network, TIMEOUT_SECONDS)
        try:
            return list(await asyncio.gather(*(_reach(transport, route, network, places) for route in routes)))
        finally:
            await transport.close()

    return asyncio.run(go())


async def _reach(transport: Transport, route: Route, network: Network, places: asyncio.Semaphore) -> Found:
    """By its first key that is taken."""
    refused: list[str] = []
    found = Found(Reached.KEY_REFUSED, "")
    async with places:
        for key in route.keys or (None,):
            found = await _ask(transport, route, key.secret if key else "", network)
            if found.how is not Reached.KEY_REFUSED:
                also = (f"{source} is refused" for source in refused)
                return Found(found.how, ", ".join([found.detail, *also]), found.address)
            refused.append(key.source if key else "no key")
    return Found(Reached.KEY_REFUSED, ", ".join(refused), found.address)


async def _ask(transport: Transport, route: Route, key: str, network: Network) -> Found:
    headers, path = ({"Authorization": f"Bearer {key}"} if key else {}), "/models"
    if route.entry.api == "anthropic":
        headers, path = {"x-api-key": key, "anthropic-version": VERSION}, path_of(route.base_url, "models")
    address = route.base_url + path
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            response = await transport.get(address, headers)
            status = response.status
            response.close()
    except aiohttp.InvalidURL:
        return Found(Reached.UNREACHABLE, "its baseUrl is not a URL", address)
    except TimeoutError:
        return Found(Reached.UNREACHABLE, f"no answer within {TIMEOUT_SECONDS:g} s", address)
    except SENDING_ERRORS as error:
        return await _unreachable(error, address, network)
    if status in (401, 403):
        return Found(Reached.KEY_REFUSED, str(status), address)
    if status == 404:
        return Found(Reached.NO_MODELS, "404", address)
    return Found(Reached.UNREACHABLE if status >= 500 else Reached.OK, str(status), address)


async def _unreachable(error: Exception, address: str, network: Network) -> Found:
    why = broken(error)
    if why.how in (Broke.LOCAL, Broke.LOST):
        return Found(Reached.LOCAL, why.detail, address)
    if not isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return Found(Reached.UNREACHABLE, why.detail, address)
    issuer = await issuer_of(address, network.proxy_for(address), TIMEOUT_SECONDS)
    who = f", which is signed by {issuer!r}" if issuer else ""
    host = urlsplit(address).hostname
    detail = f"the certificate of {host}{who}, is not trusted here: {_reason(error)}"
    return Found(Reached.UNREACHABLE, detail, address)


def _reason(error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError) -> str:
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    return getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or str(cause)
