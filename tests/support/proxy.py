"""A TCP proxy before Redis that loses one script call, or the reply to it, and breaks the connection."""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PIECE_SECONDS = 0.02


class Proxy:
    """`lose`: so many calls of `script` (any script) pass, the next one is lost, or with `lose_reply` its reply; -1: none.
    `bytes_per_second`: each direction of a connection is a link of this speed. `stops_after`: so many bytes of replies pass,
    then silence.
    `holds`: after the loss nothing passes any more, on no connection, until `flowing` is set again."""

    def __init__(self, server: Path, tls: ssl.SSLContext | None = None, *, bytes_per_second: float = math.inf) -> None:
        self._pace, self.stops_after = bytes_per_second, math.inf
        self.lose, self.lose_reply, self.lost = -1, False, 0
        self.script = b"EVALSHA"
        self.holds, self.flowing = False, threading.Event()
        self.flowing.set()
        self.server, self._tls = server, tls  # new connections go to `server`; it may be changed
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        scheme = "rediss" if tls else "redis"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.flowing.set()
        _close(*self._sockets)

    def _loses(self, chunk: bytes) -> bool:
        with self._lock:
            if self.script not in chunk or self.lose < 0:
                return False
            self.lose -= 1
            self.lost += self.lose < 0
            if self.lose < 0 and self.holds:
                self.flowing.clear()
            return self.lose < 0

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._tls is not None:
                    try:
                        client = self._tls.wrap_socket(client, server_side=True)
                    except OSError:  # a client that does not believe the certificate
                        continue
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(str(self.server))
                self._sockets += [client, upstream]
                silenced = threading.Event()
                for direction in (self._requests, self._replies):
                    threading.Thread(target=direction, args=(client, upstream, silenced), daemon=True).start()

    def _requests(self, client: socket.socket, upstream: socket.socket, silenced: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while chunk := client.recv(1 << 20):
                if self._loses(chunk):
                    if self.lose_reply:
                        silenced.set()
                        upstream.sendall(chunk)
                        return  # `_replies` breaks the connection once the server has answered
                    break
                self.flowing.wait()
                self._send(upstream, chunk)
        _close(client, upstream)

    def _replies(self, client: socket.socket, upstream: socket.socket, silenced: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while (chunk := upstream.recv(1 << 20)) and not silenced.is_set():
                self._send(client, chunk[: int(min(self.stops_after, len(chunk)))])
                self.stops_after -= len(chunk)
                if self.stops_after <= 0:
                    return  # both sides stay open, and nothing comes any more
        _close(client, upstream)

    def _send(self, there: socket.socket, chunk: bytes) -> None:
        """At the speed of the link, in pieces of 20 ms."""
        if self._pace == math.inf:
            there.sendall(chunk)
            return
        piece = max(1, int(self._pace * PIECE_SECONDS))
        for start in range(0, len(chunk), piece):
            there.sendall(chunk[start : start + piece])
            time.sleep(len(chunk[start : start + piece]) / self._pace)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextlib.contextmanager
def proxy(server: Path) -> Iterator[Proxy]:
    """A proxy on a free port to the Unix socket `server`."""
    running = Proxy(server)
    try:
        yield running
    finally:
        running.close()
