"""A served web process to talk to, for tests."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from bench.throughput import free_port
from tests.support.polling import until
from tests.support.workshop import Workshop

TOKEN = "a-token-of-tests"
BODY = {"body": {"messages": [{"role": "user", "content": "hello"}]}}


@contextlib.contextmanager
def served(workshop: Workshop, token: str | None = TOKEN, **environment: str) -> Iterator[httpx.Client]:
    """`failover serve` in a process of its own, and a client with the token."""
    port = free_port()
    if token:
        environment["FAILOVER_API_TOKEN"] = token
    process = workshop.start("failover", "serve", PORT=str(port), **environment)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, trust_env=False) as client:

        def answers() -> bool:
            assert process.poll() is None, workshop.log(process)
            with contextlib.suppress(httpx.TransportError):
                return client.get("/healthz").status_code == 200
            return False

        until(answers, "it serves")
        yield client


@contextlib.contextmanager
def file_server(content: Any) -> Iterator[str]:
    """A URL that gives `content` as JSON to whoever asks."""
    raw = json.dumps(content).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/certs"
        server.shutdown()


def tenants(workshop: Workshop, **fields: Any) -> None:
    """policies/tenants.yaml with one entry, `default`."""
    path = Path(workshop.environment["POLICIES_DIR"]) / "tenants.yaml"
    path.write_text(json.dumps({"version": 1, "tenants": {"default": fields}}))
