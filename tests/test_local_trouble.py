"""Trouble of this worker's own machine is told apart from a provider's, and costs no job an attempt."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest
import redis
from aiohttp.client_reqrep import ConnectionKey

from ops.simulators.provider import Control
from producer.connection import connect_async
from producer.trail import RejectedFor, Rejection
from tests.support.jobs import chat
from worker.breakers.health import of_routes
from worker.breakers.local import Rules
from worker.breakers.registry import Breakers
from worker.errors.classify import Broke
from worker.providers import Providers
from worker.providers.http import broken
from worker.routes.route import Route
from worker.routes.schema import RouteEntry
from worker.routing.answer import Answer, Unanswered
from worker.routing.execution_context import JobContext, Spend
from worker.routing.router import Router

KEY = ConnectionKey("api.example.com", 443, True, True, None, None, None, None)


def connecting(number: int) -> BaseException:
    return aiohttp.ClientConnectorError(KEY, OSError(number, "words of the system"))


def resolving(error: OSError) -> BaseException:
    return aiohttp.ClientConnectorDNSError(KEY, error)


def raised(error: BaseException, cause: BaseException | None = None) -> Exception:
    """As the HTTP client raises it, from what the system said."""
    try:
        raise error from cause  # noqa: TRY301 - the chain is what is tested
    except Exception as found:  # noqa: BLE001
        return found


PROXY = aiohttp.ClientProxyConnectionError(KEY, OSError(errno.ECONNREFUSED, "refused"))
NO_TUNNEL = aiohttp.ClientHttpProxyError(aiohttp.RequestInfo(None, "CONNECT", None), (), status=407)  # type: ignore[arg-type]

TABLE: dict[str, tuple[BaseException, Broke]] = {
    **{
        f"{name} when it connects": (connecting(getattr(errno, name)), Broke.LOCAL)
        for name in ("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EADDRNOTAVAIL", "ENETUNREACH", "ENETDOWN", "EPERM")
    },
    **{
        f"{name} when it connects": (connecting(getattr(errno, name)), Broke.UNREACHABLE)
        for name in ("ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ETIMEDOUT")
    },
    "no file for the resolver": (resolving(OSError(errno.EMFILE, "Too many open files")), Broke.LOCAL),
    "a resolver that does not answer": (resolving(socket.gaierror(socket.EAI_AGAIN, "try again")), Broke.LOCAL),
    "a resolver that breaks": (resolving(OSError(errno.EIO, "Input/output error")), Broke.LOCAL),
    "no such host": (resolving(socket.gaierror(socket.EAI_NONAME, "Name or service not known")), Broke.UNREACHABLE),
    "an error of TLS, whose number is no errno": (
        aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(errno.EPERM, "CERTIFICATE_VERIFY_FAILED")),
        Broke.UNREACHABLE,
    ),
    "a proxy that is away": (PROXY, Broke.LOCAL),
    "a proxy that wants a password": (NO_TUNNEL, Broke.LOCAL),
    "no thread for the resolver": (RuntimeError("can't start new thread"), Broke.LOCAL),
    "no memory for the answer": (MemoryError(), Broke.LOST),
    "no buffers while it sends": (aiohttp.ClientOSError(errno.ENOBUFS, "No buffer space"), Broke.LOST),
    "a reset while it sends": (aiohttp.ClientOSError(errno.ECONNRESET, "reset by peer"), Broke.RESET),
    "a server that hangs up": (aiohttp.ServerDisconnectedError(), Broke.RESET),
}


@pytest.mark.parametrize("case", TABLE)
def test_what_is_trouble_of_this_machine_is_no_word_on_the_route(case: str) -> None:
    error, how = TABLE[case]
    assert broken(raised(error)).how is how


@contextmanager
def no_free_file() -> Iterator[None]:
    """This process can open no file and no socket; what is open stays open."""
    _, most = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_worker_without_a_free_file_makes_no_attempt_and_blames_no_route(
    providers: Control, url: str, client: redis.Redis
) -> None:
    entry = RouteEntry(provider="a", model="m", base_url="x")
    routes = [Route("a", "hot", entry, providers.base_url("a")), Route("b", "warm", entry, providers.base_url("b"))]

    async def go() -> tuple[Answer | Unanswered, Answer | Unanswered, Spend]:
        connection, calls = connect_async(url, max_connections=2), Providers(4)
        breakers = Breakers(connection, "test", ["a", "b"], Rules(failures=1))
        await breakers.sync()
        router, spend = Router(calls, breakers, lambda: routes), Spend(1)
        context = JobContext("job", 1, chat().body, "key", asyncio.get_running_loop().time() + 20)
        try:
            with no_free_file():
                waits = await router.execute(routes, context, spend)
            told = list(spend.trail)
            assert [entry.code for entry in told if isinstance(entry, Rejection)] == [RejectedFor.LOCAL] * 2
            assert [entry.rejected for entry in told if isinstance(entry, Rejection)] == [
                "this worker's machine: too many open files (ulimit -n)"
            ] * 2
            return waits, await router.execute(routes, context, spend), spend
        finally:
            await breakers.sync()
            await calls.close()
            await connection.aclose()

    waits, answer, spend = asyncio.run(go())
    assert isinstance(waits, Unanswered)
    assert (waits.failures, waits.local, waits.opens_in) == ((), "too many open files (ulimit -n)", None)
    assert isinstance(answer, Answer)
    assert (answer.route.name, spend.attempts) == ("a", 1)
    health = of_routes(client, ["a", "b"])
    assert [(each.breaker, each.last) for each in health.values()] == [("closed", (1,)), ("closed", ())]
