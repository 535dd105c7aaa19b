"""Protection against server-side request forgery (OWASP): a tenant's callback may reach public internet addresses only.

The check uses the same addresses as the connection, so a name that resolves differently after the check gains nothing.
Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import socket

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from worker.network import DIRECT, Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
_UNICAST = ipaddress.ip_network("2000::/3")  # all public unicast addresses of IPv6
_PLATFORMS = frozenset({"168.63.129.16"})  # Azure's own service, although the address is in a public range


class NotPublic(OSError):
    """A callback must not reach this address."""


def public(address: str) -> bool:
    """Whether an IP address is a public internet address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return public(str(ip.ipv4_mapped))
        if ip in _NAT64 or ip in _SIX_TO_FOUR or ip.teredo is not None:
            return False  # an IPv4 address inside an IPv6 address
        if ip not in _UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and str(ip) not in _PLATFORMS


def literal(host: str) -> str | None:
    """The IP address, if the host is one in any form that a C library accepts (0x7f.1, 2130706433); None for a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def check_literal(url: yarl.URL) -> None:
    """Raises NotPublic if the URL's host is an IP address that is not public. A name is checked when it is resolved.

    The check uses the host as yarl normalizes it for the connection: 127。0。0。1 is 127.0.0.1.
    """
    address = literal(url.raw_host or "")
    if address is not None and not public(address):
        raise NotPublic(f"{address} is not a public address")


class PublicResolver(AbstractResolver):
    """aiohttp's own resolver, without the addresses that are not public. Raises NotPublic if none is left."""

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if kept := [entry for entry in found if public(entry["host"])]:
            return kept
        raise NotPublic(f"{host} has no public address")

    async def close(self) -> None:
        await self._resolver.close()


async def check_name(url: yarl.URL) -> None:
    """For a call through a proxy, which resolves the name itself: raises NotPublic if this machine finds an address that is
    not public. A name that only the proxy can resolve is left to the proxy."""
    resolver = DefaultResolver()
    try:
        found = await resolver.resolve(url.raw_host or "", url.port or 0, socket.AF_UNSPEC)
    except OSError:
        return
    finally:
        await resolver.close()
    if hidden := [entry["host"] for entry in found if not public(entry["host"])]:
        raise NotPublic(f"{url.raw_host} has the address {hidden[0]}, which is not public")


def session(at_once: int, *, private_allowed: bool, network: Network = DIRECT) -> aiohttp.ClientSession:
    """A client that keeps no cookies; public addresses only, unless `private_allowed`. For calls through a proxy the addresses
    are not limited: `check_name` checks them before."""
    resolver = None if private_allowed else PublicResolver()
    connector = aiohttp.TCPConnector(
        limit=at_once, resolver=resolver, use_dns_cache=private_allowed, ssl=network.trust()
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
