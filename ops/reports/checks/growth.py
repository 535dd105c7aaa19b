"""What the doctor says of Redis's memory: what it will hold at the number of jobs of the last days (docs/operations.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis
from redis.exceptions import RedisError

from ops.local import session
from ops.reports.checks.finding import Finding
from producer import keyspace
from producer.client import DEFAULT_QUEUE
from producer.environment import Environment
from producer.errors import FailoverError
from producer.policy import load_policies
from producer.redis_server.memory import memory
from producer.scripts import ask
from worker.history.document import ALL, together
from worker.history.policy import load_history_policy
from worker.history.read import slices
from worker.queue.dead_letters import now_ms

DAYS = 7
SAMPLED = 50  # done jobs whose size is looked at
FEWEST = 100  # done jobs in the last days: fewer say nothing about the next weeks
HISTORY_BYTES = 30_000_000  # at most, of a year (docs/operations.md)
SHARE = 0.8  # of maxmemory: at it, people are told


def check_growth(environment: Environment) -> Iterator[Finding]:
    """How much of Redis the results and the ledger will need at the present number of jobs. Changes nothing."""
    with contextlib.suppress(FailoverError, RedisError), session.existing(environment) as client:  # reported by others
        if client is None:
            return
        now = now_ms(client)
        week = together(each.document for each in slices(client, now - DAYS * 86_400_000, now))
        done, size = week.of(ALL, "").counters.get("done", 0), _bytes_of_a_job(client)
        if done < FEWEST or not size:
            return
        kept = max(policy.keep_results_seconds for policy in load_policies(environment).job_types.values()) / 86400
        need = done / DAYS * kept * size + load_history_policy(environment).ledger.megabytes * 1e6 + HISTORY_BYTES
        text = (
            f"{done / DAYS:,.0f} jobs a day, {size / 1000:.1f} kB each, for {kept:g} days, with ledger and history: about "
            f"{need / 1e6:,.0f} MB"
        )
        limit = memory(client)
        if limit is not None and need > SHARE * limit.limit:
            fix = "give Redis more memory, or set a shorter keep_results_seconds in policies/jobs.yaml"
            yield Finding("warn", "growth", f"{text}, of a maxmemory of {limit.limit / 1e6:,.0f} MB — {fix}")
        else:
            yield Finding("ok", "growth", text)


def _bytes_of_a_job(client: redis.Redis) -> float:
    """The average size in Redis of a done job with its result; 0 without any."""
    (ids,) = ask(client, [("ZRANDMEMBER", keyspace.finished(DEFAULT_QUEUE), SAMPLED)])
    keys = [key(job_id.decode()) for job_id in ids for key in (keyspace.job, keyspace.results)]
    sizes = ask(client, [("MEMORY", "USAGE", key) for key in keys])
    return sum(int(size or 0) for size in sizes) / len(ids) if ids else 0.0
