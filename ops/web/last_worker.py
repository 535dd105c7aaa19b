"""While no worker is alive, the web process sends the messages to people: that jobs wait and nobody executes them.

Of several web processes one does it, by the lease that workers use too (worker/notify/notifier.py). It gives the lease back
as soon as a worker runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator

from producer.connection import connect, connect_async
from producer.environment import Environment
from producer.errors import ConfigurationError
from worker.notify.notifier import Notifier
from worker.notify.settings import Settings, load_settings
from worker.routes.route import load_addresses

log = logging.getLogger("failover.web")


@contextlib.contextmanager
def watched(environment: Environment, url: str) -> Iterator[None]:
    """Watch in a thread of its own until the end of the block. Wrong settings are logged: the web process serves all the same."""
    try:
        settings = load_settings(environment, load_addresses(environment))
    except ConfigurationError as error:
        log.warning("nobody would be told that no worker runs", extra={"error": str(error)})
        yield
        return
    loop = asyncio.new_event_loop()
    task = loop.create_task(_watch(url, settings))
    thread = threading.Thread(target=_run, args=(loop, task), name="last-worker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def _watch(url: str, settings: Settings) -> None:
    client = connect_async(url, max_connections=1)
    name = f"web-{socket.gethostname()}-{os.getpid()}"
    try:
        await Notifier(connect(url, max_connections=2), name, settings, without_workers=True).run(client)
    finally:
        await client.aclose()
