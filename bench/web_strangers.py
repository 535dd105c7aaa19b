"""Half-sent requests against `failover serve`: whether /healthz answers within a second, and how much is logged.

`python -m bench.web_strangers [CONNECTIONS] [SECONDS]` keeps that many open (1,500; 15 s): every second it opens those again that
the process has closed.
"""

from __future__ import annotations

import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from bench.throughput import free_port
from ops.local import embedded
from worker.control.descriptors import raise_descriptor_limit

BIN = Path(sys.executable).parent
HALF = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Never: "
DESCRIPTORS = 1024  # of the web process: the soft limit of most machines
WITHIN_SECONDS, LOG_LINES = 1.0, 100


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, Path]]:
    """`failover serve` on an embedded Valkey: its port and its log."""
    port, path = free_port(), folder / "serve.log"
    with embedded.running(folder / "valkey") as url, path.open("wb") as log:
        environment = {**os.environ, "REDIS_URL": url, "FAILOVER_API_TOKEN": "bench", "PORT": str(port)}
        process = subprocess.Popen([BIN / "failover", "serve"], env=environment, cwd=folder, stdout=log, stderr=log)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        try:
            while healthy(port, 1.0) is None:
                time.sleep(0.05)
            yield port, path
        finally:
            process.terminate()
            process.wait(40)


def healthy(port: int, timeout: float) -> float | None:
    """The seconds until /healthz has answered, over a connection of its own; None without an answer."""
    began, connection = time.monotonic(), HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/healthz")
        return time.monotonic() - began if connection.getresponse().status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


class Strangers(threading.Thread):
    """Keeps `count` half-sent requests open until `stopped`. `opened`: how many there were in all."""

    def __init__(self, port: int, count: int) -> None:
        super().__init__(daemon=True)
        self._port, self._count = port, count
        self.stopped, self.opened = threading.Event(), 0

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        while not self.stopped.wait(1.0 if self.opened else 0.0):
            while len(selector.get_map()) < self._count and not self.stopped.is_set():
                with_server = socket.create_connection(("127.0.0.1", self._port))
                with_server.send(HALF)
                selector.register(with_server, selectors.EVENT_READ)
                self.opened += 1
            for key, _ in selector.select(0):  # it is closed by the server
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr] # a socket


def main() -> int:
    count, seconds = (int(word) for word in (*sys.argv[1:], *("1500", "15")[len(sys.argv) - 1 :]))
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (port, log):
        before, strangers = len(log.read_text().splitlines()), Strangers(port, count)
        strangers.start()
        answers: list[float | None] = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            answers.append(healthy(port, 10.0))
            time.sleep(0.1)
        strangers.stopped.set()
        lines = len(log.read_text().splitlines()) - before
    slowest = max((answer for answer in answers if answer is not None), default=float("inf"))
    lost = answers.count(None)
    print(f"{strangers.opened:,} half-sent requests in {seconds} s, {count:,} at once, {DESCRIPTORS:,} descriptors")
    print(f"/healthz: {len(answers)} requests, {lost} without an answer, the slowest after {slowest * 1000:.0f} ms")
    print(f"log: {lines} lines")
    passed = not lost and slowest <= WITHIN_SECONDS and lines < LOG_LINES
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
