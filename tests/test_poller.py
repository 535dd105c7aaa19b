"""The poller: a step goes on through all trouble, and trouble is logged when it begins and when it ends, not in between."""

from __future__ import annotations

import asyncio
import logging

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ops.reports import status
from producer import Producer, keyspace
from producer.job import JobStatus
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.replies import texts
from tests.support.transitions import Q
from tests.support.workshop import Workshop
from worker import poller as poller_module
from worker.control import worker_registry
from worker.poller import Poller

AWAY, SILENT = RedisConnectionError("refused"), RedisTimeoutError("no reply")
WRONG_TYPE, FULL = ResponseError("WRONGTYPE of a key"), ResponseError("OOM")
AWAY_LOGGED, BACK_LOGGED, REFUSED_LOGGED = "redis is away", "redis is back", "redis refuses a step"
ACCEPTED_LOGGED = "redis accepts a step again"


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
        ([WRONG_TYPE, None, None, WRONG_TYPE], [REFUSED_LOGGED, ACCEPTED_LOGGED, REFUSED_LOGGED], 0),
        ([WRONG_TYPE, FULL, FULL], [REFUSED_LOGGED] * 2, 0),  # for another reason
        ([WRONG_TYPE, AWAY, WRONG_TYPE, None], [REFUSED_LOGGED, AWAY_LOGGED, ACCEPTED_LOGGED, BACK_LOGGED], 1),
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
        assert [text.split(" fails since ")[0] for text in poller.told()] == ["`step 0`", "`step 1`"]
        assert f"UTC: {WRONG_TYPE} — another tool wrote the key" in poller.told()[0]

    asyncio.run(story())
    assert [vars(record)["step"] for record in logged.records] == ["step 0", "step 1", "step 2", "step 2"]


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


def test_what_a_worker_cannot_read_is_shown_until_it_can(
    workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    """Another tool overwrites the caps; jobs go on with the last ones that were read."""
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    worker = workshop.worker()
    client.set(keyspace.BUDGETS, "not a hash")

    def failing() -> list[str]:
        return [text for text in status.gather(client, Q).failing if text.startswith(worker_registry.OUR_NAMES)]

    until(failing, "status shows it")
    name = texts(client.smembers(keyspace.WORKERS))[0].removeprefix(keyspace.WORKER)
    assert failing()[0].startswith(f"{name}: `budgets` fails since 2")
    assert f"HGETALL {keyspace.BUDGETS} — another tool wrote the key" in failing()[0]
    shown = workshop.run("failover", "status")
    assert shown.returncode == 0 and f"FAILING {name}: `budgets` fails since" in " ".join(shown.stdout.split())
    assert producer.wait(producer.enqueue(chat()), 30).status is JobStatus.DONE
    client.delete(keyspace.BUDGETS)
    until(lambda: not failing(), "status shows it no more")
    refused, accepted = (workshop.events(worker, event) for event in (REFUSED_LOGGED, ACCEPTED_LOGGED))
    assert [line["step"] for line in refused] == [line["step"] for line in accepted] == ["budgets"]
