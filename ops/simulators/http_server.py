"""A local HTTP server in a thread; the simulators run on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from aiohttp import web


async def serve(app: web.Application, port: int, ready: Callable[[int], None]) -> None:
    """Serve until cancelled. `port` 0 takes a free one; `ready` is called with the port."""
    logging.getLogger("aiohttp.server").addFilter(_unexpected)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=4096)
    await site.start()
    ready(site._server.sockets[0].getsockname()[1])  # type: ignore[union-attr]
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def running(app: web.Application) -> Iterator[str]:
    """The server's URL. It is a daemon thread, so it always ends with the process."""
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    ready = threading.Event()

    def note_port(port: int) -> None:
        ports.append(port)
        ready.set()

    serving = loop.create_task(serve(app, 0, note_port))

    def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(serving)
        loop.close()

    thread = threading.Thread(target=work, name="local server", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join()


def _unexpected(record: logging.LogRecord) -> bool:
    """False for connections that a simulator resets itself: they are not logged."""
    return not (record.exc_info and isinstance(record.exc_info[1], ConnectionResetError))
