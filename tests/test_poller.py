"""The poller: a step goes on through all trouble, and trouble is logged when it begins and when it ends, not in between."""

from __future__ import annotations

import asyncio
import logging

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker import poller as poller_module
from worker.poller import Poller

AWAY, SILENT = RedisConnectionError("refused"), RedisTimeoutError("no reply")
WRONG_TYPE, FULL = ResponseError("WRONGTYPE of a key"), ResponseError("OOM")
AWAY_LOGGED, BACK_LOGGED, REFUSED_LOGGED = "redis is away", "redis is back", "redis refuses a step"


class Scripted:
    """A step with these results, one after the other; at the end it asks for the poller's end."""

    def __init__(self, *results: RedisError | None) -> None:
        self.results, self.runs, self.troubles, self.ended = list(results), 0, 0, asyncio.Event()

    async def run(self) -> None:
        if self.runs == len(self.results):
            self.ended.set()
            await asyncio.Event().wait()
        result = self.results[self.runs]
        self.runs += 1
        if result is not None:
            raise result

    def trouble(self) -> None:
        self.troubles += 1


async def polled(*steps: Scripted) -> Poller:
    """Each step to the end of its results, one step after the other."""
    poller = Poller()
    for number, step in enumerate(steps):
        poller.every(f"step {number}", 0, step.run, on_trouble=step.trouble)
    for service, step in zip(poller.services(), steps, strict=True):
        async with asyncio.timeout(30):
            task = asyncio.create_task(service)
            await step.ended.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return poller


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "failover.worker")
    return caplog


@pytest.mark.parametrize(
    ("results", "messages", "troubles"),
    [
        ([None, None], [], 0),
        ([AWAY, AWAY, SILENT], [AWAY_LOGGED], 3),
        ([AWAY, None, None], [AWAY_LOGGED, BACK_LOGGED], 1),
        ([AWAY, None, SILENT, None], [AWAY_LOGGED, BACK_LOGGED] * 2, 2),
        ([WRONG_TYPE, WRONG_TYPE, WRONG_TYPE], [REFUSED_LOGGED], 0),
        ([WRONG_TYPE, None, WRONG_TYPE], [REFUSED_LOGGED] * 2, 0),
        ([WRONG_TYPE, FULL, FULL], [REFUSED_LOGGED] * 2, 0),  # for another reason
        ([WRONG_TYPE, AWAY, WRONG_TYPE, None], [REFUSED_LOGGED, AWAY_LOGGED, BACK_LOGGED], 1),
    ],
)
def test_trouble_is_logged_when_it_begins_and_when_it_ends(
    logged: pytest.LogCaptureFixture, results: list[RedisError | None], messages: list[str], troubles: int
) -> None:
    async def story() -> None:
        step = Scripted(*results)
        await polled(step)
        assert (step.runs, step.troubles) == (len(results), troubles)

    asyncio.run(story())
    assert [record.message for record in logged.records] == messages


def test_redis_that_is_away_is_one_trouble_for_all_steps(logged: pytest.LogCaptureFixture) -> None:
    """The second step finds it away too, and comes back; only with the first one is it back for all."""

    async def story() -> None:
        first, second = Scripted(AWAY), Scripted(AWAY, None)
        await polled(first, second)

    asyncio.run(story())
    assert [record.message for record in logged.records] == [AWAY_LOGGED]


def test_each_step_that_redis_refuses_is_logged_and_told(logged: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        poller = await polled(Scripted(WRONG_TYPE, WRONG_TYPE), Scripted(FULL), Scripted(FULL, None))
        assert poller.refused == {"step 0": str(WRONG_TYPE), "step 1": str(FULL)}

    asyncio.run(story())
    assert [vars(record)["step"] for record in logged.records] == ["step 0", "step 1", "step 2"]


def test_a_late_answer_is_trouble_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "SLOW_SECONDS", -1.0)

    async def story() -> None:
        step = Scripted(None, None)
        await polled(step)
        assert step.troubles == 2

    asyncio.run(story())


def test_a_step_that_is_kicked_runs_at_once() -> None:
    async def story() -> None:
        poller, kick, ran = Poller(), asyncio.Event(), asyncio.Queue[int]()

        async def run() -> None:
            ran.put_nowait(1)

        poller.every("rare", 86_400, run, kick=kick, at_start=False)
        (service,) = poller.services()
        task = asyncio.create_task(service)
        for _ in range(3):
            assert ran.empty()
            kick.set()
            async with asyncio.timeout(30):
                await ran.get()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
