"""A TCP proxy that can be café Wi-Fi: latency, jitter, and connections that break."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

SECONDS = (0.05, 0.4)  # of each piece in each direction
BREAKS = 0.03  # the share of pieces at which a connection breaks
PIECE = 16_384


class SlowLink:
    """`bad`: whether the link is bad now. `url`: where clients connect."""

    def __init__(self, host: str, port: int, seed: int = 1) -> None:
        self._host, self._port, self._chance = host, port, random.Random(seed)  # noqa: S311 - which piece is lost is no secret
        self.bad, self.url = False, ""

    @classmethod
    @contextlib.contextmanager
    def before(cls, url: str) -> Iterator[SlowLink]:
        """A link before this HTTP server, in a thread of its own."""
        parts = urlsplit(url)
        link = cls(str(parts.hostname), int(parts.port or 80))
        ready, over = threading.Event(), asyncio.Event()
        loops: list[asyncio.AbstractEventLoop] = []

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            server = await asyncio.start_server(link._connected, "127.0.0.1", 0, backlog=1024)
            link.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ready.set()
            await over.wait()

        thread = threading.Thread(target=asyncio.run, args=(serve(),), name="slow link", daemon=True)
        thread.start()
        ready.wait()
        try:
            yield link
        finally:
            loops[0].call_soon_threadsafe(over.set)
            thread.join()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        passing = {asyncio.create_task(self._pass(reader, back)), asyncio.create_task(self._pass(there, writer))}
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the end of the link; nobody waits for this task
            return
        finally:
            for task in passing:
                task.cancel()
            for each in (back, writer):
                each.transport.abort() if self.bad else each.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                if self.bad:
                    await asyncio.sleep(self._chance.uniform(*SECONDS))
                    if self._chance.random() < BREAKS:
                        return
                writer.write(piece)
                await writer.drain()
