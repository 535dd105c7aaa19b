"""Trouble of this worker's own machine: too many open files, no memory, no network, a DNS or a proxy of ours that is away.

Such a call says nothing about the provider. The chain of exceptions decides (classes and errno), not their texts.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp

from worker.providers.transport import ProxyUnusable

# errno -> words. Only the local kernel gives these: what a peer or a router on the way says (ECONNREFUSED, ECONNRESET,
# EHOSTUNREACH, ETIMEDOUT) is not among them.
_ERRNO = {
    errno.EMFILE: "too many open files (ulimit -n)",
    errno.ENFILE: "too many open files on this machine",
    errno.ENOMEM: "out of memory",
    errno.ENOBUFS: "no buffer space for sockets",
    errno.EADDRNOTAVAIL: "no free local port",
    errno.ENETUNREACH: "no network: nothing leads to the provider's address",
    errno.ENETDOWN: "the network is down",
    errno.EPERM: "this machine forbids the connection (firewall)",
    errno.EACCES: "this machine forbids the connection (firewall)",
}
# A resolver that gives no answer, as against one that says that there is no such host (EAI_NONAME): a wrong route.
_NO_DNS = {socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_MEMORY, socket.EAI_SYSTEM}
_BEFORE_SENDING = (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, ProxyUnusable, RuntimeError)
_NO_THREAD = "can't start new thread"  # Python has no class of its own for it


@dataclass(frozen=True)
class LocalTrouble:
    """`sent`: the request may have left this machine, so that it may be billed."""

    words: str
    sent: bool


def local_trouble(error: BaseException) -> LocalTrouble | None:
    """What is wrong with this machine, or None if the error is the provider's or of the way to it."""
    chain = list(_chain(error))
    sent = not any(isinstance(each, _BEFORE_SENDING) for each in chain)
    words = next(filter(None, map(_words, reversed(chain))), None)  # the innermost says most
    return None if words is None else LocalTrouble(words, sent)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and what aiohttp keeps beside that."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [getattr(each, "os_error", None), each.__cause__]
        if not each.__suppress_context__:
            waiting.append(each.__context__)


def _words(error: BaseException) -> str | None:
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"our proxy answers {error.status} (HTTPS_PROXY)"
        case ProxyUnusable() | aiohttp.ClientProxyConnectionError():
            return f"our proxy cannot be used (HTTPS_PROXY): {_reason(error)}"
        case MemoryError():
            return "out of memory"
        case RuntimeError() if str(error) == _NO_THREAD:
            return "no more threads (ulimit -u)"
        case aiohttp.ClientConnectorDNSError():
            return _dns_words(error.os_error)
        case socket.gaierror() | ssl.SSLError():  # their numbers are no errno
            return None
        case OSError():
            return _ERRNO.get(error.errno or 0)
    return None


def _dns_words(error: OSError) -> str | None:
    """EAI_SYSTEM comes as the OSError that the resolver met."""
    if isinstance(error, socket.gaierror):
        return "our DNS does not answer" if error.errno in _NO_DNS else None
    if error.errno is None:
        return None
    return _ERRNO.get(error.errno, f"our DNS cannot be asked ({error.strerror})")


def _reason(error: BaseException) -> str:
    """What the proxy's or the resolver's socket said, without the proxy's address."""
    cause = next((each for each in _chain(error) if isinstance(each, OSError) and each.strerror), None)
    return (cause.strerror or "") if cause else str(error)[:60]
