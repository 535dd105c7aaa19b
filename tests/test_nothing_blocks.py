"""Redis is blocked by no script for long, however many jobs wait: read from its slow log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
import redis

from producer import JobResult, Producer, keyspace
from producer.connection import connect_async
from producer.job import JobStatus
from producer.scripts import PRELUDES, ask, run
from producer.waiting import WaitReason
from tests.support.jobs import chat
from tests.support.transitions import Q, send, where
from tests.support.transitions import claim as claim_by
from worker.control import pause
from worker.money.budget_state import WAKE_CAPPED
from worker.queue import audit, tenant_jobs, transitions
from worker.queue.claim import Claim
from worker.queue.fair_queue import length_call, place
from worker.queue.outcomes import Park
from worker.queue.waiting import Waiting
from worker.worker import CLAIM_AT_MOST

JOBS, TENANTS = 100_000, 2_000
LONGEST_MS = 10
ROUNDS = 7  # the best one counts, because the machine may be busy
_FILL = """
for n = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local id, tenant = string.format('w%06d', n), 't' .. n % tonumber(ARGV[4])
  local job = 'rq:job:' .. id
  redis.call('COPY', KEYS[1], job)
  redis.call('HSET', job, 'tenant', tenant, 'accepted_ms', now_ms + n)
  redis.call('ZADD', KEYS[3], now_ms + 86400000, id)
  redis.call('ZADD', KEYS[3] .. ':promised', now_ms + 86400000, id)
  enter(KEYS[2], id, tenant)
end
"""


def fill(client: redis.Redis, producer: Producer, count: int, tenants: int) -> list[str]:
    """So many waiting jobs of so many tenants, without their way through the producer."""
    job_id = producer.enqueue(chat("a job"), job_id="w000000")
    code = "".join((PRELUDES / f"{name}.lua").read_text() for name in ("clock", "fair_queue")) + _FILL
    for start in range(1, count, 2000):
        keys = (keyspace.job(job_id), keyspace.queue(Q), keyspace.accepted(Q))
        client.eval(code, 3, *keys, "", start, min(count - 1, start + 1999), tenants)
    return [f"w{n:06}" for n in range(count)]


def claim(client: redis.Redis, at_most: int) -> tuple[Claim, ...]:
    return claim_by(client, at_most, token=uuid4().hex)


@pytest.fixture
def slow(client: redis.Redis) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Does something several times, and fails if Redis was blocked for LONGEST_MS every time.

    On a busy machine Redis itself waits for a CPU: what it computed in all of a round counts then.
    """

    def cpu_ms() -> float:
        info = client.info("cpu")
        return 1000 * float(info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])

    def check(do: Callable[[], object]) -> None:
        for _ in range(ROUNDS):
            client.slowlog_reset()
            before = cpu_ms()
            do()
            computed = cpu_ms() - before
            found = client.slowlog_get(10)
            if not found or computed < LONGEST_MS:
                return
        longest = max(found, key=lambda entry: entry["duration"])
        raise AssertionError(f"{longest['duration'] / 1000} ms: {longest['command'][:200]!r}")

    before = str(client.config_get("slowlog-log-slower-than")["slowlog-log-slower-than"])
    client.config_set("slowlog-log-slower-than", LONGEST_MS * 1000)
    yield check
    client.config_set("slowlog-log-slower-than", before)
    client.slowlog_reset()


@pytest.mark.parametrize("tenants", [1, TENANTS])
def test_a_job_in_the_middle_of_a_long_queue_is_cancelled_at_once(
    client: redis.Redis, producer: Producer, tenants: int
) -> None:
    """Its entry may stay in the list: it is counted no more, and never claimed."""
    ids = fill(client, producer, 5000, tenants)
    gone = [ids[index] for index in (0, 1, 2500, 2501, 4998, 4999)]
    for job_id in gone[:3]:
        producer.cancel(job_id, who="sam")
    for job_id in gone[3:]:
        result = JobResult(job_id=job_id, status=JobStatus.DONE, completion={}, route="r")
        assert (
            send(client, transitions.resolve(Q, result, token=uuid4().hex, who="sam", keep_seconds=60)) == b"committed"
        )
    for job_id in (gone[0], gone[1], gone[4], gone[5]):
        assert "queue" not in where(client, job_id)
    ((length, first),) = ask(client, [length_call(Q)])
    assert (length, first) == (len(ids) - len(gone), ids[2].encode())
    taken: list[str] = []
    while claims := claim(client, 500):
        taken += [each.job_id for each in claims]
    assert set(taken) == set(ids) - set(gone) and len(taken) == len(ids) - len(gone)
    assert ask(client, [length_call(Q)])[0] == [0, None]


def test_a_claim_goes_on_behind_very_many_jobs_that_are_gone(client: redis.Redis, producer: Producer) -> None:
    """One script does not remove all their entries. It says that more may wait."""
    ids = fill(client, producer, 2000, 1)
    for job_id in ids[:1900]:
        client.hset(keyspace.job(job_id), "status", "failed")
    replies = [send(client, transitions.claim(uuid4().hex, 50, "w1", [Q])) for _ in range(6)]
    assert [transitions.stopped_early(reply) for reply in replies] == [True, True, True, False, False, False]
    assert [len(transitions.claimed(reply)[0]) for reply in replies] == [0, 0, 0, 50, 50, 0]


@pytest.mark.parametrize("tenants", [1, TENANTS])
def test_nothing_blocks_redis_while_very_many_jobs_wait(
    client: redis.Redis, producer: Producer, slow: Callable[[Callable[[], object]], None], tenants: int
) -> None:
    ids = iter(fill(client, producer, JOBS, tenants)[JOBS // 2 :])

    def resolve() -> None:
        result = JobResult(job_id=next(ids), status=JobStatus.DONE, completion={}, route="r")
        send(client, transitions.resolve(Q, result, token=uuid4().hex, who="sam", keep_seconds=60))

    def cancel_tenant() -> None:
        tenant_jobs.cancel(client, Q, "t0", [next(ids) for _ in range(50)], who="sam", report=lambda _: None)

    slow(lambda: producer.cancel(next(ids), who="sam"))
    slow(resolve)
    slow(cancel_tenant)
    slow(lambda: ask(client, [length_call(Q), pause.look([Q], [], [])]))
    slow(lambda: place(client, Q, next(ids), "t0"))
    slow(lambda: producer.enqueue(chat(tenant_id="t0")))
    slow(lambda: asyncio.run(audited(client)))


async def audited(client: redis.Redis) -> None:
    client.delete(keyspace.audit_turn(Q))
    path = client.connection_pool.connection_kwargs["path"]
    async with connect_async(f"unix://{path}") as connection:
        await audit.audit(connection, [Q])


def test_no_transition_of_many_jobs_at_once_blocks_redis(
    client: redis.Redis, producer: Producer, slow: Callable[[Callable[[], object]], None]
) -> None:
    """As many as one script takes, while many jobs wait."""
    fill(client, producer, 20_000, TENANTS)
    held: list[Claim] = []
    slow(lambda: held.extend(claim(client, CLAIM_AT_MOST)))
    slow(lambda: send(client, transitions.extend(Q, [each.lease for each in held[:CLAIM_AT_MOST]])))

    def more(count: int) -> list[Claim]:
        return [each for _ in range(-(-count // 100)) for each in claim(client, 100)]

    for in_turn in (True, False):
        parked = more(ROUNDS * 200)
        park = Park(600, Waiting(WaitReason.BUDGET), (), in_turn=in_turn)
        run(client, [transitions.settle(each, park, worker_name="w1", attempts=1, run_ms=1) for each in parked])
        slow(lambda: ask(client, [WAKE_CAPPED.call([keyspace.QUEUES], [])]))
        slow(lambda: send(client, transitions.promote(Q)))
    crashed = more(ROUNDS * transitions.REAP_AT_MOST)
    client.zadd(keyspace.leases(Q), {each.lease: 1 for each in crashed})
    slow(lambda: send(client, transitions.reap(Q, 10**15)))
    ids = [f"w{n:06}" for n in range(19_000, 19_000 + ROUNDS * transitions.EXPIRE_AT_MOST)]
    client.zadd(keyspace.accepted(Q), dict.fromkeys(ids, 1))
    slow(lambda: send(client, transitions.expire(Q)))
