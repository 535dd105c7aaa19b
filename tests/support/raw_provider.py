"""A provider that answers with exact bytes: what real providers and gateways send, whatever HTTP libraries would make of it."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

REASONS = {200: "OK", 400: "Bad Request", 429: "Too Many Requests"}


@dataclass
class RawProvider:
    """`answers`: one a request, the last one repeats; an answer is bytes, or a function of the request's body that gives
    them. `asked`: the bodies of the requests so far, as JSON; `headers` beside them."""

    answers: Sequence[bytes | Callable[[dict[str, Any]], bytes]]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def next_answer(self, body: dict[str, Any]) -> bytes:
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        return answer if isinstance(answer, bytes) else answer(body)


@contextmanager
def raw_provider(
    *answers: bytes | Callable[[dict[str, Any]], bytes], tls: ssl.SSLContext | None = None
) -> Iterator[RawProvider]:
    """Listens on a free port of this machine, with `tls` by https at localhost."""
    provider = RawProvider(answers)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b""
            while line := self.rfile.readline():
                if line in (b"\r\n", b"\n"):
                    break
                head += line
            lines = (line.partition(":") for line in head.decode("latin-1").splitlines()[1:])
            names = {name.strip().lower(): value.strip() for name, _, value in lines}
            body = json.loads(self.rfile.read(int(names.get("content-length", 0))) or b"{}")
            provider.asked.append(body)
            provider.headers.append(names)
            self.wfile.write(provider.next_answer(body))

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        provider.url = f"http://127.0.0.1:{server.server_address[1]}"
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            provider.url = f"https://localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002}, daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()


def reply(body: Any, status: int = 200, content_type: str = "application/json", **headers: str) -> bytes:
    """A whole answer; `body` as JSON, or bytes as they are."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} {REASONS.get(status, 'X')}\r\ncontent-type: {content_type}\r\n{more}"
    return f"{head}content-length: {len(raw)}\r\nconnection: close\r\n\r\n".encode() + raw


def events(*chunks: Any, done: bool = True, content_type: str = "text/event-stream") -> bytes:
    """A stream that ends with the connection; a chunk is JSON, or bytes as they are."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n".encode()
    raw = b"".join(
        each if isinstance(each, bytes) else b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks
    )
    return head + raw + (b"data: [DONE]\n\n" if done else b"")
