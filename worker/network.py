"""How every outgoing call leaves this machine: which certificates it trusts, and through which proxy it goes.

Providers, callbacks, Slack, e-mail, cost reports and the doctor all ask here. Variables: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and
NO_PROXY in either case (the lower case one first, as curl does); SSL_CERT_FILE, SSL_CERT_DIR and REQUESTS_CA_BUNDLE, whose
certificates are trusted beside those of the system.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import certifi

from producer.environment import Environment, is_http_url
from producer.errors import ConfigurationError, Problem

PROXY_VARIABLES = {"https": "HTTPS_PROXY", "http": "HTTP_PROXY", "all": "ALL_PROXY"}
TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Network:
    """`proxies`: URLs by the scheme of the call, `all` for both. `no_proxy`: hosts that are called directly. `trusted`: files
    and folders of certificates, by variable. The default: no proxy, and the certificates of the system."""

    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold a password
    no_proxy: tuple[str, ...] = ()
    trusted: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, environment: Environment) -> Network:
        """Read the environment. Raises ConfigurationError for a proxy or a file of certificates that cannot be used."""
        proxies = {}
        for scheme, variable in PROXY_VARIABLES.items():
            if url := _either(environment, variable):
                proxies[scheme] = _proxy_url(variable, url)
        hosts = tuple(host.strip().lower() for host in _either(environment, "NO_PROXY").split(",") if host.strip())
        trusted = tuple((name, environment[name]) for name in TRUST_VARIABLES if environment.get(name))
        network = cls(proxies, hosts, trusted)
        if trusted:
            network.trust()  # they are read now, so that a wrong one is told at the start
        return network

    def proxy_for(self, url: str) -> str | None:
        """The proxy's URL for a call to `url`, with its password if it has one; None: the call goes out directly."""
        parts = urlsplit(url)
        proxy = self.proxies.get(parts.scheme) or self.proxies.get("all")
        if proxy is None:
            return None
        host, port = (parts.hostname or "").lower().rstrip("."), parts.port or _PORTS.get(parts.scheme, 0)
        return None if any(_matches(host, port, pattern) for pattern in self.no_proxy) else proxy

    def trust(self) -> ssl.SSLContext:
        """The context for TLS, one for all clients. Raises ConfigurationError for certificates that cannot be read."""
        return _context(self.trusted)

    def options(self, url: str) -> dict[str, Any]:
        """What a client of httpx needs for a call to `url`."""
        return {"verify": self.trust(), "proxy": self.proxy_for(url), "trust_env": False}

    def in_words(self, url: str) -> str:
        """How a call to `url` goes out, without the proxy's password."""
        proxy = self.proxy_for(url)
        trust = "".join(f" and {variable}" for variable, _ in self.trusted)
        through = f"through the proxy {without_password(proxy)}" if proxy else "directly"
        return f"{through}, trusts the certificates of the system{trust}"


DIRECT = Network()


def without_password(url: str) -> str:
    """A proxy's URL for people."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def authorization(proxy: str) -> dict[str, str]:
    """The header for a proxy whose URL has a password; {} for others."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _either(environment: Environment, variable: str) -> str:
    return environment.get(variable.lower()) or environment.get(variable) or ""


def _proxy_url(variable: str, url: str) -> str:
    """`proxy.example.com:3128` is read as http, as curl does."""
    url = url if "://" in url else f"http://{url}"
    if not is_http_url(url):
        fix = "use http://HOST:PORT; a SOCKS proxy is not supported"
        raise ConfigurationError([Problem(variable, "", "is not the URL of an HTTP proxy", fix)])
    return url


def _matches(host: str, port: int, pattern: str) -> bool:
    """NO_PROXY's entries: `*`, a domain with all below it (a dot before it changes nothing), `host:port`, an address, a
    network as 10.0.0.0/8."""
    if pattern == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name, _, wanted = pattern.partition(":")
        name = name.removeprefix("*").strip(".")
        return (not wanted or wanted == str(port)) and bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(pattern.strip("[]"), strict=False)
    except ValueError:
        return pattern in (f"{host}:{port}", f"[{host}]:{port}")


@lru_cache(maxsize=8)
def _context(trusted: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()  # with SSL_CERT_FILE and SSL_CERT_DIR, if the process was started with them
    if not (paths.cafile or (paths.capath and any(Path(paths.capath).iterdir()))):  # as Python's own build for macOS
        context.load_verify_locations(certifi.where())
    if trusted:  # the certificates of a company's own authority often lack what Python 3.13 asks for: it did not before
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    loaded = {paths.cafile, paths.capath}
    for variable, path in trusted:
        if path in loaded:
            continue
        loaded.add(path)
        is_folder = Path(path).is_dir()
        try:
            context.load_verify_locations(None if is_folder else path, path if is_folder else None)
        except (OSError, ssl.SSLError) as error:
            why = (
                "does not exist"
                if isinstance(error, FileNotFoundError)
                else f"cannot be read: {error.strerror or error}"
            )
            fix = "name a file of certificates in PEM form, or a folder of them, or unset it"
            raise ConfigurationError([Problem(variable, path, why, fix)]) from None
    return context
