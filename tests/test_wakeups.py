"""Who waits for a job is woken when it ends: without polling, also after a cut, and by looking where no messages come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
import redis

from producer import AsyncProducer, Producer, wakeups
from producer.job import JobResult, JobStatus
from producer.policy import Policies
from producer.redis_server.cancelling import cancelled
from tests.support.jobs import chat
from tests.support.polling import until

CHANNELS = "failover:job:?*"


async def waited(client: AsyncProducer, job_id: str, end: Callable[[str], object], seconds: float = 30) -> JobResult:
    """The result of a wait during which `end` ends the job, once the wait is subscribed."""
    wait = asyncio.create_task(client.wait(job_id, seconds))
    ours = client.wakeups
    await asyncio.to_thread(until, lambda: ours.connected, "it is subscribed")
    await asyncio.sleep(0.1)  # the first looks are over
    await asyncio.to_thread(end, job_id)
    return await wait


def reads(client: redis.Redis) -> int:
    stats = client.info("commandstats")
    return int(stats.get("cmdstat_hmget", {"calls": 0})["calls"])


def test_a_wait_ends_with_the_job_and_does_not_poll(
    url: str, producer: Producer, client: redis.Redis, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "LOOK_SECONDS", 1e6)  # it would wait for ever without the message

    async def run() -> tuple[JobResult, int]:
        ours = AsyncProducer.from_url(url, policies)
        try:
            first = await ours.enqueue(chat())
            await waited(ours, first, lambda job_id: producer.cancel(job_id, who="test"))
            second = await ours.enqueue(chat())
            wait = asyncio.create_task(ours.wait(second, 30))
            await asyncio.sleep(0.05)
            before = reads(client)
            await asyncio.sleep(0.5)
            polled = reads(client) - before
            await asyncio.to_thread(producer.cancel, second, who="test")
            return await wait, polled
        finally:
            await ours.close()

    result, polled = asyncio.run(run())
    assert result.status is JobStatus.CANCELLED and polled == 0


def test_a_wait_goes_on_after_its_connection_was_cut(
    url: str, producer: Producer, client: redis.Redis, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "LOOK_SECONDS", 1e6)

    def cut_and_end(job_id: str) -> None:
        client.client_kill_filter(_type="pubsub")
        producer.cancel(job_id, who="test")

    async def run() -> JobResult:
        ours = AsyncProducer.from_url(url, policies)
        try:
            return await waited(ours, await ours.enqueue(chat()), cut_and_end)
        finally:
            await ours.close()

    assert asyncio.run(run()).status is JobStatus.CANCELLED


def test_without_channels_a_wait_looks_now_and_then(
    url: str, producer: Producer, client: redis.Redis, policies: Policies
) -> None:
    client.acl_setuser("narrow", enabled=True, nopass=True, keys=["*"], categories=["+@all"], reset_channels=True)
    connected = client.connection_pool.connection_kwargs

    async def run() -> tuple[JobResult, bool]:
        narrow = f"unix://narrow:x@{connected['path']}"
        ours = AsyncProducer.from_url(narrow, policies)
        try:
            job_id = await ours.enqueue(chat())
            wait = asyncio.create_task(ours.wait(job_id, 30))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(producer.cancel, job_id, who="test")
            return await wait, ours.wakeups.connected
        finally:
            await ours.close()

    try:
        result, connected_at_all = asyncio.run(run())
    finally:
        client.acl_deluser("narrow")
    assert result.status is JobStatus.CANCELLED and not connected_at_all


def test_who_comes_while_the_connection_is_made_is_woken_too(
    url: str, producer: Producer, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "LOOK_SECONDS", 1e6)

    async def run() -> None:
        ours = AsyncProducer.from_url(url, policies)
        try:
            ids = [receipt.job_id for receipt in await ours.enqueue_many(chat(str(n)) for n in range(60))]

            async def waiting(number: int) -> JobResult:
                for _ in range(number):  # so many turns of the loop later
                    await asyncio.sleep(0)
                return await ours.wait(ids[number], 30)

            waits = [asyncio.create_task(waiting(number)) for number in range(60)]
            await asyncio.sleep(0.3)
            for job_id in ids:
                await asyncio.to_thread(producer.cancel, job_id, who="test")
            results = await asyncio.wait_for(asyncio.gather(*waits), 10)
            assert {result.status for result in results} == {JobStatus.CANCELLED}
        finally:
            await ours.close()

    asyncio.run(run())


def test_many_wait_over_one_connection_and_leave_nothing_behind(
    url: str, producer: Producer, client: redis.Redis, policies: Policies
) -> None:
    async def run() -> None:
        ours = AsyncProducer.from_url(url, policies)
        try:
            ids = [receipt.job_id for receipt in await ours.enqueue_many(chat(str(n)) for n in range(100))]
            waits = [asyncio.create_task(ours.wait(job_id, 30)) for job_id in ids * 2]
            await asyncio.to_thread(until, lambda: len(client.pubsub_channels(CHANNELS)) == 100, "all are subscribed")
            assert sum(each["sub"] != "0" for each in client.client_list()) == 1
            for job_id in ids:
                await asyncio.to_thread(producer.cancel, job_id, who="test")
            results = await asyncio.gather(*waits)
            assert {result.status for result in results} == {JobStatus.CANCELLED}
            await asyncio.to_thread(until, lambda: client.pubsub_channels(CHANNELS) == [], "none is subscribed")
        finally:
            await ours.close()

    asyncio.run(run())


def test_a_task_that_swallows_a_cancel_ends_all_the_same() -> None:
    """As asyncio.wait_for does before Python 3.12, where the reply comes with the cancel."""

    async def endless() -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async def scenario() -> bool:
        task = asyncio.create_task(endless())
        await asyncio.sleep(0)
        await cancelled([task])
        return task.cancelled()

    assert asyncio.run(scenario())
