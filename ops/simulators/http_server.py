"""An HTTP server of this machine alone, in a thread: what the simulators of other people's services run on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from aiohttp import web


async def serve(app: web.Application, port: int, ready: Callable[[int], None]) -> None:
    """Until cancelled; `ready` is told the port (0 takes a free one)."""
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
    """Its URL. The server is gone with the process, however that ends."""
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    ready = threading.Event()

    def told(port: int) -> None:
        ports.append(port)
        ready.set()

    serving = loop.create_task(serve(app, 0, told))

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
    """Connections that a simulator resets itself are no news."""
    return not (record.exc_info and isinstance(record.exc_info[1], ConnectionResetError))
