"""Where a tenant's callback may go: to the public internet, whatever its name resolves to (OWASP: server-side request forgery).

The check is made on the addresses that the connection then uses, so a name that changes its mind between check and connect
gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import socket

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
_UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is the internet's
_PLATFORMS = frozenset({"168.63.129.16"})  # Azure's own, though its number is public


class NotPublic(OSError):
    """An address that a callback must not reach."""


def public(address: str) -> bool:
    """Whether an IP address belongs to the internet and not to this house."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return public(str(ip.ipv4_mapped))
        if ip in _NAT64 or ip in _SIX_TO_FOUR or ip.teredo is not None:
            return False  # an IPv4 address in disguise
        if ip not in _UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and str(ip) not in _PLATFORMS


def literal(host: str) -> str | None:
    """The address that a host is written as, in any of the forms that a C library reads (0x7f.1, 2130706433); None for a
    name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def check_literal(url: yarl.URL) -> None:
    """Raises NotPublic for a URL whose host is an address that is not public; a name is checked when it is resolved.

    The host is looked at as it will be connected to: yarl makes 127.0.0.1 of 127。0。0。1.
    """
    address = literal(url.raw_host or "")
    if address is not None and not public(address):
        raise NotPublic(f"{address} is not a public address")


class PublicResolver(AbstractResolver):
    """aiohttp's own resolver, less every address that is not public."""

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


def session(at_once: int, *, private_allowed: bool) -> aiohttp.ClientSession:
    """One that reaches public addresses only, keeps no cookies and reads no proxy from the environment."""
    resolver = None if private_allowed else PublicResolver()
    connector = aiohttp.TCPConnector(limit=at_once, resolver=resolver, use_dns_cache=private_allowed)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
