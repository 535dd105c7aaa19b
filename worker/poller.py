"""The poller runs a worker's repeated steps, each at its own interval. Redis trouble does not stop it.

When Redis is away, that is logged once for all steps together, and once when it is back. When Redis refuses a step (a key
has the wrong type), that is logged once per step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

log = logging.getLogger("failover.worker")

SLOW_SECONDS = 1.0  # a step that takes longer means that Redis was stuck


@dataclass
class Step:
    """One step. `seconds`: the wait between two runs, with 10 % jitter. `kick`: when set, the step runs at once.
    `on_trouble`: called when Redis does not answer, or answers late. `at_start`: run it before the first wait."""

    name: str
    seconds: float
    run: Callable[[], Awaitable[None]]
    kick: asyncio.Event | None = None
    on_trouble: Callable[[], None] = field(default=lambda: None)
    at_start: bool = True


class Poller:
    """The repeated steps of one worker."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._away: set[str] = set()  # steps whose last run found Redis away
        self._refused: dict[str, str] = {}  # steps whose last run Redis refused: name -> why

    def every(
        self,
        name: str,
        seconds: float,
        run: Callable[[], Awaitable[None]],
        *,
        kick: asyncio.Event | None = None,
        on_trouble: Callable[[], None] = lambda: None,
        at_start: bool = True,
    ) -> None:
        """Add a step (see `Step`). It runs when the coroutines of `services` run."""
        self._steps.append(Step(name, seconds, run, kick, on_trouble, at_start))

    @property
    def refused(self) -> dict[str, str]:
        """The steps that Redis refuses: name -> why."""
        return dict(self._refused)

    def services(self) -> list[Coroutine[Any, Any, None]]:
        """One endless coroutine per step."""
        return [self._run(step) for step in self._steps]

    async def _run(self, step: Step) -> None:
        if not step.at_start:
            await self._pause(step)
        while True:
            if step.kick is not None:
                step.kick.clear()
            began = time.monotonic()
            try:
                await step.run()
            except (RedisError, OSError) as error:  # OSError: this machine has no file or memory for a connection
                self._failed(step, error)
            else:
                self._succeeded(step)
            if time.monotonic() - began > SLOW_SECONDS:
                step.on_trouble()
            await self._pause(step)

    async def _pause(self, step: Step) -> None:
        seconds = step.seconds * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
        if step.kick is None:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await step.kick.wait()
            await asyncio.sleep(0)  # let other changes of the same moment happen first, so that one run covers them

    def _failed(self, step: Step, error: RedisError | OSError) -> None:
        if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
            if not self._away:
                log.warning("redis is away", extra={"step": step.name, "error": str(error)})
            self._away.add(step.name)
            step.on_trouble()
        elif self._refused.get(step.name) != str(error):
            self._refused[step.name] = str(error)
            log.error("redis refuses a step", extra={"step": step.name, "error": str(error)})

    def _succeeded(self, step: Step) -> None:
        self._refused.pop(step.name, None)
        if step.name in self._away:
            self._away.discard(step.name)
            if not self._away:
                log.info("redis is back")
