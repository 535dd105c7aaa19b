"""The poller runs a worker's repeated steps, each at its own interval. Redis trouble does not stop it.

When Redis is away, that is logged once for all steps together, and once when it is back. When Redis refuses a step (a key
has the wrong type), that is logged once per step, and once when it works again; meanwhile `told` has it for operators. A step
that fails keeps what it read last.

Steps run on a grid of TICK_SECONDS, so that those of the same tick share a round trip (producer/scripts.py, `Gathering`).
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

from producer.redis_server.errors import fix_of_refusal
from worker.humanize import one_line

log = logging.getLogger("failover.worker")

TOLD_AT_MOST = 500  # characters of an error
TICK_SECONDS = 1.0
_PHASE = random.random() * TICK_SECONDS  # noqa: S311 - of this process's ticks, so that other workers have other ones
SLOW_SECONDS = 1.0  # a step that takes longer means that Redis was stuck


def until_tick(seconds: float) -> float:
    """Seconds until the tick that is nearest to `seconds` from now; less than a tick is returned as it is."""
    if seconds < TICK_SECONDS:
        return seconds
    now = time.monotonic() - _PHASE
    return round((now + seconds) / TICK_SECONDS) * TICK_SECONDS - now


@dataclass
class Step:
    """One step. `seconds`: between the ticks at which it runs; less than a tick: the wait between two runs.

    `kick`: when set, the step runs at once. `on_trouble`: called when Redis does not answer, or answers late. `at_start`: run
    it before the first wait.
    """

    name: str
    seconds: float
    run: Callable[[], Awaitable[None]]
    kick: asyncio.Event | None = None
    on_trouble: Callable[[], None] = field(default=lambda: None)
    at_start: bool = True


@dataclass(frozen=True)
class Refusal:
    """Why Redis refuses a step, and since when (Unix seconds)."""

    why: str
    since: float


class Poller:
    """The repeated steps of one worker. Loops of their own report their results with `failed` and `works`."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._away: set[str] = set()  # steps whose last run found Redis away
        self._refused: dict[str, Refusal] = {}  # by step: those whose last run Redis refused

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
        return {name: refusal.why for name, refusal in self._refused.items()}

    def told(self) -> list[str]:
        """For operators: each step that Redis refuses, since when, why, and how to fix it."""
        return [
            f"`{name}` fails since {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(refusal.since))}: "
            f"{one_line(refusal.why, TOLD_AT_MOST)} — {fix_of_refusal(refusal.why)}"
            for name, refusal in sorted(self._refused.items())
        ]

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
                self.failed(step.name, error)
                if _is_away(error):
                    step.on_trouble()
            else:
                self.works(step.name)
            if time.monotonic() - began > SLOW_SECONDS:
                step.on_trouble()
            await self._pause(step)

    async def _pause(self, step: Step) -> None:
        seconds = until_tick(step.seconds)
        if step.kick is None:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await step.kick.wait()
            await asyncio.sleep(0)  # let other changes of the same moment happen first, so that one run covers them

    def failed(self, name: str, error: RedisError | OSError) -> None:
        """A run of the step has failed. Logs it if that is new, or has another reason."""
        before = self._refused.get(name)
        if _is_away(error):
            if not self._away:
                log.warning("redis is away", extra={"step": name, "error": str(error)})
            self._away.add(name)
        elif before is None or before.why != str(error):
            self._refused[name] = Refusal(str(error), before.since if before else time.time())
            log.error("redis refuses a step", extra={"step": name, "error": str(error)})

    def works(self, name: str) -> None:
        """A run of the step has succeeded. Logs it if the last one failed."""
        if self._refused.pop(name, None):
            log.info("redis accepts a step again", extra={"step": name})
        if name in self._away:
            self._away.discard(name)
            if not self._away:
                log.info("redis is back")


def _is_away(error: RedisError | OSError) -> bool:
    return isinstance(error, RedisConnectionError | RedisTimeoutError | OSError)
