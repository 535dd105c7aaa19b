"""Provider calls: one file per wire dialect, one shared HTTP client per process.

The transport is aiohttp itself: with httpx before it a call costs 0.2 to 0.4 ms of CPU more. Its pool takes as many connections
as the worker has slots.
"""

from __future__ import annotations

import logging
import time

from worker.errors.classify import Broke, Broken, Reply
from worker.network import DIRECT, Network
from worker.providers import openai_compatible
from worker.providers.anthropic import request as anthropic
from worker.providers.http import ProviderRequest, broken
from worker.providers.transport import Transport

CONNECT_TIMEOUT_SECONDS = 5.0
SPARE_CONNECTIONS = 16
SAY_AGAIN_SECONDS = 60.0
LOCAL = frozenset({Broke.LOCAL, Broke.LOST})

__all__ = ["ProviderRequest", "Providers"]

log = logging.getLogger("failover.worker")

_DIALECTS = {"openai": openai_compatible.complete, "anthropic": anthropic.complete}


class Providers:
    """Every provider of the routing map, behind one call. Made on the loop that uses it, and closed there."""

    def __init__(self, concurrency: int, network: Network = DIRECT) -> None:
        self._transport = Transport(concurrency + SPARE_CONNECTIONS, network, CONNECT_TIMEOUT_SECONDS)
        self._said: dict[str, float] = {}  # troubles of this machine -> when they were logged

    async def complete(self, request: ProviderRequest) -> Reply | Broken:
        """One attempt. Whatever a provider sends, this returns."""
        try:
            answer = await _DIALECTS[request.route.entry.api](self._transport, request)
        except Exception as error:
            answer = broken(error)
            if answer.how not in LOCAL:
                log.exception("an answer broke the client", extra={"route": request.route.name})
                return Broken(Broke.GARBLED, f"{type(error).__name__} in the HTTP client")
        if isinstance(answer, Broken) and answer.how in LOCAL:
            self._say(answer.detail, request.route.name)
        return answer

    def _say(self, trouble: str, route: str) -> None:
        """Log a trouble of this machine, which many calls meet at once, once a minute."""
        now = time.monotonic()
        self._said = {words: at for words, at in self._said.items() if now - at < SAY_AGAIN_SECONDS}
        if trouble not in self._said:
            self._said[trouble] = now
            log.warning("trouble of this machine: jobs wait for it", extra={"trouble": trouble, "route": route})

    async def close(self) -> None:
        await self._transport.close()
