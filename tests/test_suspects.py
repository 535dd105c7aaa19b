"""Jobs whose worker vanished: they run few at a time, and only one that ran alone among suspects is charged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import redis
from rq.job import Job, JobStatus

from producer import Producer, keyspace
from producer.job import DeadReason
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.transitions import Q, claim, expire_leases, send, settle, where
from worker.queue import transitions
from worker.queue.claim import Claim
from worker.queue.claimer import ClaimSize
from worker.queue.outcomes import Released, Retry
from worker.queue.suspects import Suspects
from worker.queue.transitions import Settled


def vanish(client: redis.Redis, token: str, *, alone: bool | None) -> list[list[bytes]]:
    """A worker claims, begins, and vanishes. `alone` None: before it has begun. Returns the reply of the reaper."""
    for held in claim(client, 10, token):
        if held.suspect and alone is not None:
            send(client, transitions.begin(held, alone=alone))
    expire_leases(client)
    reply: list[list[bytes]] = send(client, transitions.reap(Q, 2**53))
    return reply


def test_a_job_that_ran_alone_among_suspects_when_three_workers_vanished_is_buried(
    producer: Producer, client: redis.Redis
) -> None:
    job_id = producer.enqueue(chat())
    for crash in range(4):
        requeued, buried = vanish(client, f"t{crash}", alone=True)
        assert (requeued, buried) == (([], [job_id.encode()]) if crash == 3 else ([job_id.encode()], []))
    assert "4 workers vanished" in (producer.fetch(job_id).dead_detail or "")
    assert where(client, job_id) == ["failed"]
    assert producer.fetch(job_id).dead_reason is DeadReason.CRASHED
    assert client.zcard(keyspace.accepted(Q)) == 0
    assert Job.fetch(job_id, connection=client, serializer="json").get_status() == JobStatus.FAILED


def test_a_suspect_beside_others_or_that_has_not_begun_is_never_charged(
    producer: Producer, client: redis.Redis
) -> None:
    ids = [producer.enqueue(chat(), job_id=name) for name in ("a", "b")]
    for n in range(12):
        requeued, buried = vanish(client, f"t{n}", alone=None if n % 2 else False)
        assert (len(requeued), buried) == (2, [])
    held = claim(client, 10, "t")
    assert [(one.job_id, one.suspect, one.crashes) for one in held] == [(ids[0], 6, 6), (ids[1], 6, 6)]


def test_a_suspect_that_was_executed_is_no_suspect_any_more(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat())
    for n in range(3):
        vanish(client, f"t{n}", alone=True)
    (held,) = claim(client, token="t")
    assert settle(client, held, Released([])) is Settled.COMMITTED
    (held,) = claim(client, token="u")
    assert held.suspect == 3
    assert settle(client, held, Retry(0, "down", [])) is Settled.COMMITTED
    until(lambda: send(client, transitions.promote(Q)) == 1, "it is due")
    assert [vanish(client, f"v{n}", alone=True)[0] for n in range(3)] == [[job_id.encode()]] * 3


def test_a_worker_that_was_only_silent_clears_its_jobs(producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat())
    for n in range(6):
        (held,) = claim(client, token=f"t{n}")
        assert held.suspect == 0
        send(client, transitions.begin(held, alone=True))
        expire_leases(client)
        assert send(client, transitions.reap(Q, 2**53)) == [[job_id.encode()], []]
        assert send(client, transitions.extend(Q, [held.lease])) == [held.lease.encode()]


def test_a_heartbeat_extends_the_leases_of_a_claim_whose_reply_has_not_arrived(
    producer: Producer, client: redis.Redis
) -> None:
    producer.enqueue(chat())
    (held,) = claim(client, token="t")
    expire_leases(client)
    assert send(client, transitions.extend(Q, [], "t")) == []
    assert send(client, transitions.reap(Q, 2**53)) == [[], []]
    assert where(client, held.job_id) == ["leased"]


def suspect(name: str, times: int = 1) -> Claim:
    return Claim(
        name,
        "e",
        Q,
        0,
        b"",
        0,
        10**9,
        executions=0,
        crashes=times,
        suspect=times,
        size=2,
        attempts=0,
        run_ms=0,
        trail=b"[]",
    )


async def _begun(claims: Sequence[Claim], ends: int) -> list[tuple[list[str], bool]]:
    """What is told of `claims`, when `ends` of them end in turn."""
    told: list[tuple[list[str], bool]] = []

    async def tell(running: Sequence[Claim], alone: bool) -> None:
        told.append(([held.job_id for held in running], alone))

    suspects = Suspects(tell)
    turns = [asyncio.create_task(suspects.turn(held)) for held in claims]
    for held in claims[:ends]:
        await turns[claims.index(held)]
        suspects.ended(held)
    for _ in range(10):
        await asyncio.sleep(0)
    for turn in turns:
        turn.cancel()
    await asyncio.gather(*turns, return_exceptions=True)
    return told


def test_suspects_start_one_at_a_time_and_more_after_each_that_ends() -> None:
    told = asyncio.run(_begun([suspect(name) for name in "abcdefgh"], ends=2))
    assert told[0] == (["a"], True)
    assert told[1:3] == [(["b", "c"], False)] * 2
    assert told[-1] == (["c", "d", "e", "f"], False)


def test_a_job_that_was_suspect_twice_runs_alone() -> None:
    claims = [suspect("a"), suspect("b", 2), suspect("c", 2), suspect("d")]
    assert asyncio.run(_begun(claims, ends=3)) == [([name], True) for name in "abcd"]


def test_a_suspect_that_is_given_up_before_its_turn_keeps_nobody_waiting() -> None:
    async def scenario() -> int:
        async def tell(running: Sequence[Claim], alone: bool) -> None: ...

        suspects = Suspects(tell)
        first, gone, last = suspect("a"), suspect("b"), suspect("c")
        await suspects.turn(first)
        waiting = asyncio.create_task(suspects.turn(gone))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        suspects.ended(gone)
        suspects.ended(first)
        await suspects.turn(last)
        return suspects.waiting

    assert asyncio.run(scenario()) == 0


def test_a_claim_is_as_large_as_its_link_is_fast() -> None:
    size = ClaimSize(most=4_000_000)
    assert size.limit == 1024 * 1024
    size.learn(1_100_000, 5.0)
    assert (size.limit, size.reached) == (524_288, True)
    for _ in range(9):
        size.learn(600_000, 9.0)
    assert size.limit == ClaimSize.LEAST
    size.learn(1000, 0.01)
    assert (size.limit, size.reached) == (ClaimSize.LEAST, False)
    for _ in range(9):
        size.learn(size.limit, 0.01)
    assert size.limit == 4_000_000
