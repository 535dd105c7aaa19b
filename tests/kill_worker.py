"""A worker that dies by SIGKILL at a named point: `python -m tests.kill_worker POINT`. Leases are short, to save time.

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

from producer.environment import load_environment
from worker import consumer, transitions, upkeep
from worker.committer import Committer
from worker.configuration import Configuration
from worker.consumer import FailoverWorker
from worker.providers import Providers

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


def settles(_committer: Committer, batch: list[Any]) -> bool:
    return bool(batch)


def writes(committer: Committer, step: str) -> bool:
    return any(waiting.words[0] == step for waiting in committer._ledger._waiting)


def main() -> None:
    point, _, when = sys.argv[1].partition("-")
    transitions.LEASE_SECONDS = 1.5
    upkeep.HEARTBEAT_SECONDS = 0.3
    script = {"claim": transitions.CLAIM, "heartbeat": transitions.EXTEND}.get(point)

    def sends(_client: object, commands: Any) -> bool:
        return any(getattr(command, "script", None) is script for command in commands)

    def anything(*_: object) -> bool:
        return True

    if point == "claim":
        consumer.ask_async = die_at(point, when, consumer.ask_async, sends)
    elif point == "heartbeat":
        upkeep.ask_async = die_at(point, when, upkeep.ask_async, sends)
    elif point == "call":
        Providers.complete = die_at(point, when, Providers.complete, anything)  # type: ignore[method-assign]
    elif point in ("reserve", "dispatch", "settle"):
        due = settles if point == "settle" else lambda committer, _: writes(committer, point)
        Committer._send = die_at(point, when, Committer._send, due)  # type: ignore[method-assign]
    environment = load_environment()
    configuration = Configuration.load(environment)
    worker = FailoverWorker(environment["REDIS_URL"], configuration.routes.queues, configuration, concurrency=3)
    asyncio.run(worker.run())


if __name__ == "__main__":
    main()
