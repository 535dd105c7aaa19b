"""Who signed the certificate of a server that is not trusted: asked for people, and never to send anything."""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from worker.network import authorization

LONGEST_HEAD = 8192


async def issuer_of(url: str, proxy: str | None, seconds: float) -> str:
    """The common name, or else the organization, that signed the certificate at `url`; "" if it cannot be seen."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only to look at it: nothing is sent
    try:
        async with asyncio.timeout(seconds):
            writer = await _connected(host, port, proxy)
            try:
                await writer.start_tls(context, server_hostname=host)
                tls = writer.get_extra_info("ssl_object")
                shown = tls.getpeercert(binary_form=True)
            finally:
                writer.transport.abort()
        issuer = x509.load_der_x509_certificate(shown).issuer
    except (OSError, ValueError, TimeoutError, EOFError, asyncio.LimitOverrunError):
        return ""
    names = (
        *issuer.get_attributes_for_oid(NameOID.COMMON_NAME),
        *issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME),
    )
    return next((str(name.value) for name in names), "")


async def _connected(host: str, port: int, proxy: str | None) -> asyncio.StreamWriter:
    """A connection to the server, through the proxy's tunnel where there is one."""
    if proxy is None:
        return (await asyncio.open_connection(host, port))[1]
    gateway = urlsplit(proxy)
    reader, writer = await asyncio.open_connection(gateway.hostname, gateway.port or 80, limit=LONGEST_HEAD)
    header = "".join(f"{name}: {value}\r\n" for name, value in authorization(proxy).items())
    writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{header}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    return writer
