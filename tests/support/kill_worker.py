"""A worker that dies by SIGKILL at a named point: `python -m tests.support.kill_worker POINT`. Leases are short, to save time.

The points are on both sides of each thing that a worker does to the world: claim, reserve money, dispatch, call a provider,
settle, heartbeat.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from producer import scripts
from producer.environment import load_environment
from producer.scripts import Call
from worker.configuration import Configuration
from worker.money.ledger import LEDGER
from worker.providers import Providers
from worker.queue import claimer, maintenance, transitions
from worker.queue.batcher import Batcher
from worker.worker import FailoverWorker

POINTS = ("claim", "reserve", "dispatch", "call", "settle", "heartbeat")


def die_at(point: str, when: str, wrapped: Callable[..., Awaitable[Any]], due: Callable[..., bool]) -> Any:
    """`wrapped`, but with SIGKILL before or after the first call for which `due` says so."""

    async def dying(*args: Any, **kwargs: Any) -> Any:
        deadly = due(*args)
        if deadly and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await wrapped(*args, **kwargs)
        if deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return dying


SETTLES = (transitions.COMPLETE, transitions.BURY, transitions.RESCHEDULE, transitions.RELEASE)


def sends_settle(batcher: Batcher) -> bool:
    """Whether the next round trip settles an outcome."""
    return any(getattr(request.built(), "script", None) in SETTLES for request in batcher._waiting)


def writes(batcher: Batcher, step: str) -> bool:
    """Whether the next round trip writes such a step into the ledger."""
    calls = (request.built() for request in batcher._waiting)
    steps = [call.words[-1] for call in calls if isinstance(call, Call) and call.script is LEDGER]
    return any(isinstance(each, bytes) and f'"{step}"'.encode() in each for each in steps)


def main() -> None:
    point, _, when = sys.argv[1].partition("-")
    transitions.LEASE_SECONDS = 1.5
    maintenance.HEARTBEAT_SECONDS = 0.3
    script = {"claim": transitions.CLAIM, "heartbeat": transitions.EXTEND}.get(point)

    def sends(_client: object, commands: Any) -> bool:
        return any(getattr(command, "script", None) is script for command in commands)

    def anything(*_: object) -> bool:
        return True

    if point == "claim":
        claimer.ask_async = die_at(point, when, scripts.ask_async, sends)  # type: ignore[attr-defined]  # its own import
    elif point == "heartbeat":
        maintenance.ask_async = die_at(point, when, scripts.ask_async, sends)  # type: ignore[attr-defined]  # its own import
    elif point == "call":
        Providers.complete = die_at(point, when, Providers.complete, anything)  # type: ignore[method-assign]  # it dies there
    elif point in ("reserve", "dispatch", "settle"):
        due = sends_settle if point == "settle" else lambda batcher: writes(batcher, point)
        Batcher._send = die_at(point, when, Batcher._send, due)  # type: ignore[method-assign]  # it dies there
    environment = load_environment()
    configuration = Configuration.load(environment)
    worker = FailoverWorker(environment["REDIS_URL"], configuration.routes.queues, configuration, concurrency=3)
    asyncio.run(worker.run())


if __name__ == "__main__":
    main()
