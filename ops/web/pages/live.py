"""Server-sent events of page Now: one look a second for all who watch, and to each of them only the sections that changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping

from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from ops.web.draining import Draining

log = logging.getLogger("failover.web")

LOOK_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0
MOST_VIEWERS = 500  # of one process; each holds a connection
AWAY = "away"  # the section that says that Redis does not answer


class Live:
    """Looks while anybody watches. A viewer that reads slowly skips what has changed again meanwhile: nothing is kept for it."""

    def __init__(self, look: Callable[[], Mapping[str, str]], draining: Draining) -> None:
        self._look, self._draining = look, draining
        self._events: dict[str, bytes] = {}  # by section, the event that shows its latest content
        self._viewers: set[asyncio.Event] = set()  # of each viewer: set when there is news
        self._looking: asyncio.Task[None] | None = None
        self._latest: tuple[float, Mapping[str, str]] = (-math.inf, {})
        self._one_look = asyncio.Lock()

    async def sections(self) -> Mapping[str, str]:
        """The sections as they are now, at most LOOK_SECONDS old: the first content of a page. Raises RedisError."""
        async with self._one_look:
            at, found = self._latest
            if time.monotonic() - at >= LOOK_SECONDS:
                found = await run_in_threadpool(self._look)
                self._latest = (time.monotonic(), found)
            return found

    @property
    def full(self) -> bool:
        return len(self._viewers) >= MOST_VIEWERS

    async def events(self) -> AsyncIterator[bytes]:
        """The events of one viewer, until it leaves or the process stops."""
        news = asyncio.Event()
        self._viewers.add(news)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._run())
        sent: dict[str, bytes] = {}
        try:
            yield b"retry: 2000\n\n"
            with self._draining.waking(news.set):
                while not self._draining.begun:
                    news.clear()
                    fresh = [event for name, event in self._events.items() if sent.get(name) is not event]
                    sent = dict(self._events)
                    yield b"".join(fresh) or b": still here\n\n"
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), KEEP_ALIVE_SECONDS)
        finally:
            self._viewers.discard(news)

    def _wake(self) -> None:
        for news in self._viewers:
            news.set()

    async def _run(self) -> None:
        """Look until nobody watches any more."""
        while self._viewers and not self._draining.begun:
            sections = await self._sections()
            changed = {
                name: event
                for name, html in sections.items()
                if self._events.get(name) != (event := _event(name, html))
            }
            if changed:
                self._events |= changed
                self._wake()
            await asyncio.sleep(LOOK_SECONDS)
        self._events.clear()  # the next viewer gets what is true then

    async def _sections(self) -> Mapping[str, str]:
        try:
            return {**await self.sections(), AWAY: ""}
        except RedisError as error:
            return {AWAY: f"Redis does not answer ({type(error).__name__}). What you see here is older."}
        except Exception:
            log.exception("page Now cannot be made")
            return {AWAY: "This page cannot be made now; the log of the web process says why."}


def _event(name: str, html: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in html.splitlines() or [""])
    return f"event: {name}\n{lines}\n".encode()
