"""Memory of jobs in flight: what fits starts, what does not waits, and one job always goes on."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest
import redis

from producer import Producer
from producer.errors import ConfigurationError
from producer.job import JobStatus
from tests.support.jobs import chat, results
from tests.support.workshop import Workshop
from worker import memory
from worker.machine import Machine
from worker.memory import COPIES, JOB_BYTES, Limit, Memory, _cgroup_files, limit_of

MB = 1024 * 1024


def of(size: int) -> Memory:
    """With `size` bytes for jobs."""
    found = Memory(Limit(1 << 40, "test"))
    found.size = size
    return found


def started(holding: Memory, *prompts: int) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(holding.hold(f"j{n}", prompt)) for n, prompt in enumerate(prompts)]


async def settled(tasks: list[asyncio.Task[None]]) -> list[bool]:
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


def test_jobs_that_do_not_fit_wait_in_order() -> None:
    async def scenario() -> None:
        holding = of(COPIES * 10 * MB + 10 * JOB_BYTES)
        tasks = started(holding, 6 * MB, 6 * MB, 1 * MB, 1 * MB)
        assert await settled(tasks) == [True, False, False, False]  # a small one does not overtake a large one for ever
        assert holding.free == 0
        holding.release("j0")
        assert await settled(tasks) == [True] * 4
        for name in ("j1", "j2", "j3"):
            holding.release(name)
        assert holding.free * COPIES == pytest.approx(holding.size, abs=COPIES)

    asyncio.run(scenario())


def test_a_job_larger_than_everything_runs_alone() -> None:
    async def scenario() -> None:
        holding = of(1 * MB)
        tasks = started(holding, 30 * MB, 1000)
        assert await settled(tasks) == [True, False]
        holding.release("j0")
        assert await settled(tasks) == [True, True]

    asyncio.run(scenario())


def test_answers_grow_while_they_fit_and_one_always_does() -> None:
    async def scenario() -> None:
        holding = of(COPIES * 11 * MB // 2)
        await asyncio.gather(*started(holding, 0, 0, 0))
        assert holding.grow("j0", 3 * MB) is None
        assert holding.grow("j1", 3 * MB) is None  # the first that is over: it goes on, so that something ends
        assert holding.grow("j1", 3 * MB) is None
        waits = [holding.grow("j2", MB), holding.grow("j0", MB)]
        assert [wait is not None and wait.done() for wait in waits] == [False, False]
        holding.release("j1")
        await asyncio.sleep(0)
        assert [wait is not None and wait.done() for wait in waits] == [True, True]

    asyncio.run(scenario())


def test_a_job_that_is_given_up_while_it_waits_is_forgotten() -> None:
    async def scenario() -> None:
        holding = of(MB)
        first, gone, last = started(holding, MB, MB, 0)
        assert await settled([first, gone, last]) == [True, False, False]
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        holding.release("j1")
        holding.release("j0")
        assert await settled([last]) == [True]

    asyncio.run(scenario())


def test_the_smallest_limit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, root = tmp_path / "cgroup", tmp_path / "fs"
    groups.write_text("4:memory:/a/b\n1:cpu:/x\n0::/c/d\n")
    for name in ("memory/a/b", "memory/a", "c/d", "c"):
        (root / name).mkdir(parents=True, exist_ok=True)
    found = [str(path.relative_to(root)) for path in _cgroup_files(groups, root)]
    assert {
        "memory/a/b/memory.limit_in_bytes",
        "memory/a/memory.limit_in_bytes",
        "c/d/memory.max",
        "c/memory.max",
    } <= set(found)
    limits = [Limit(900, "this machine"), Limit(300, "cgroup")]
    monkeypatch.setattr(memory, "_limits", lambda: iter(limits))
    assert limit_of(None) == limits[1]
    assert limit_of("512") == Limit(512 * MB, "WORKER_MEMORY_MB")


def test_slots_are_capped_by_memory_and_by_descriptors_and_it_says_why() -> None:
    small, few = Machine(Limit(256 * MB, "cgroup"), 10_000), Machine(Limit(64 * 1024 * MB, "cgroup"), 256)
    assert small.slots(1) == (1, "")
    slots, why = small.slots(5000)
    assert slots < 5000
    assert "256 MB (cgroup)" in why
    slots, why = few.slots(500)
    assert slots == 192
    assert "ulimit -n" in why
    with pytest.raises(ConfigurationError, match="WORKER_MEMORY_MB"):
        Machine.of({"WORKER_MEMORY_MB": "much"})


def test_a_worker_with_little_memory_does_all_large_jobs(
    workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    ids = [receipt.job_id for receipt in producer.enqueue_many([chat(f"{n}" + "x" * 1_000_000) for n in range(12)])]
    workshop.worker("--burst", WORKER_MEMORY_MB="150")
    assert {result.status for result in results(producer, ids)} == {JobStatus.DONE}


def test_an_answer_longer_than_the_route_allows_goes_elsewhere_and_opens_no_breaker(
    workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    workshop.routes(hot=[{"upstream": "a", "maxAnswerBytes": 2000}], warm=[{"upstream": "b"}])
    workshop.policy()
    workshop.providers.behave("a", text="x" * 5000)
    ids = [producer.enqueue(chat(str(n))) for n in range(8)]
    workshop.worker("--burst")
    found = results(producer, ids)
    assert {(result.status, result.provider) for result in found} == {(JobStatus.DONE, "b")}
    assert {result.attempted[0].outcome for result in found} == {"answer_too_long"}


def test_few_descriptors_are_raised_or_cap_the_slots(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        worker = workshop.worker("--burst")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    worker.wait()
    (limits,) = workshop.events(worker, "limits of this machine")
    assert limits["open_files"] > 100
