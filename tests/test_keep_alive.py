"""A provider closes an idle connection at the moment at which the next request is written on it: sent again, once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import pytest

from tests.support.raw_provider import reply
from worker.errors.classify import Broke, Broken, Reply
from worker.providers import ProviderRequest, Providers
from worker.routes.route import Route
from worker.routes.schema import RouteEntry

COMPLETION = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
ANSWER = reply(COMPLETION).replace(b"connection: close\r\n", b"")
Ends = Literal["resets unread", "hangs up", "hangs up late", "cuts the answer", "closes new ones too"]


@dataclass
class ImpatientProvider:
    """Answers one request on each connection, keeps it open, and ends it when the next request arrives. `read`: requests that
    it has read; `met`: connections that it ended under a request."""

    ends: Ends
    url: str = ""
    read: int = 0
    met: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self.ends == "closes new ones too" and self.met:
                _request(connection)
                return
            _request(connection)
            with self.lock:
                self.read += 1
            connection.sendall(ANSWER)
            if not connection.recv(1, socket.MSG_PEEK):
                return
            with self.lock:
                self.met += 1
            if self.ends == "resets unread":
                return  # with bytes unread: the kernel sends a reset
            _request(connection)
            if self.ends == "hangs up late":
                threading.Event().wait(1.3)
            if self.ends == "cuts the answer":
                connection.sendall(ANSWER[:20])


def _request(connection: socket.socket) -> None:
    text = b""
    while b"\r\n\r\n" not in text:
        text += connection.recv(65536)
    head, _, body = text.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)


@contextlib.contextmanager
def impatient_provider(ends: Ends) -> Iterator[ImpatientProvider]:
    provider = ImpatientProvider(ends)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    provider.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=provider.serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield provider
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def two_rounds(url: str, jobs: int) -> list[Reply | Broken]:
    """`jobs` calls at once, then as many on the connections that these left idle; the answers of the second round."""
    entry = RouteEntry(provider="openai", model="m", base_url=url)
    body = {"messages": [{"role": "user", "content": "hi"}]}
    wanted = ProviderRequest(Route("a", "hot", entry, url), "", body=body, idempotency_key="k", seconds=10)

    async def go() -> list[Reply | Broken]:
        providers = Providers(jobs)
        try:
            await asyncio.gather(*(providers.complete(wanted) for _ in range(jobs)))
            return list(await asyncio.gather(*(providers.complete(wanted) for _ in range(jobs))))
        finally:
            await providers.close()

    return asyncio.run(go())


@pytest.mark.parametrize("ends", ["resets unread", "hangs up"])
def test_fifty_requests_that_meet_a_closed_connection_are_sent_again(ends: Ends) -> None:
    with impatient_provider(ends) as provider:
        answers = two_rounds(provider.url, 50)
    assert all(isinstance(answer, Reply) for answer in answers)
    assert (provider.met, provider.read) == (50, 100)


@pytest.mark.parametrize(
    ("ends", "how"),
    [("hangs up late", Broke.RESET), ("cuts the answer", Broke.RESET), ("closes new ones too", Broke.RESET)],
)
def test_a_request_that_may_have_been_read_is_not_sent_again_and_none_is_sent_a_third_time(
    ends: Ends, how: Broke
) -> None:
    with impatient_provider(ends) as provider:
        (answer,) = two_rounds(provider.url, 1)
    assert isinstance(answer, Broken)
    assert answer.how is how
    assert (provider.met, provider.read) == (1, 1)
