"""The only module that calls the Lua transitions. Each function makes one script call, or reads the reply of one."""

from __future__ import annotations

import sys
import zlib
from base64 import b64encode
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from producer import keyspace
from producer.exchange import KEEP_CANCELLED_SECONDS, withdrawn_from
from producer.job import JobResult
from producer.results import DONE_DATA, encode_result
from producer.scripts import Call, Command, Part, Script
from producer.trail import Attempt
from producer.waiting import WaitReason
from worker.control.pause import flag_keys
from worker.queue.claim import Claim
from worker.queue.outcomes import KEEP_DEAD_SECONDS, Dead, Done, Outcome, Park, Released, Retry, Trail
from worker.queue.waiting import Waiting

_LUA = Path(__file__).parent / "lua"
CLAIM, EXTEND, PROMOTE, REAP = (Script.load(_LUA, name) for name in ("claim", "extend", "promote", "reap"))
REQUEUE, RESOLVE, AUDIT = (Script.load(_LUA, name) for name in ("requeue", "resolve", "audit"))
BEGIN, EXPIRE, DISCARD, CANCEL_WAITING = (
    Script.load(_LUA, name) for name in ("begin", "expire", "discard", "cancel_waiting")
)
COMPLETE, BURY, RESCHEDULE, RELEASE = (Script.load(_LUA, n) for n in ("complete", "bury", "reschedule", "release"))

LEASE_SECONDS = 12.0  # a job whose worker died is queued again within this plus one reaper interval
CHARGES_THAT_BURY = 3
CLAIM_BYTES = 16 * 1024 * 1024  # the most compressed job data per claim, because the script blocks Redis while it runs
UNPACKED = 10  # times the size of its compressed data, for a job of which nobody wrote the size
PROMOTE_AT_MOST = REAP_AT_MOST = 100  # of one script, so that it blocks Redis for a few milliseconds
EXPIRE_AT_MOST = 50


class Settled(StrEnum):
    """The verdict of a settle."""

    COMMITTED = "committed"
    AGAIN = "again"  # a resend: it had been committed before
    FENCED = "fenced"  # this execution no longer holds the lease; nothing was changed


def claim(
    token: str,
    at_most: int,
    worker_name: str,
    queues: Sequence[str],
    providers: Sequence[str] = (),
    routes: Sequence[str] = (),
    *,
    at_most_bytes: int = CLAIM_BYTES,
    at_most_size: int = sys.maxsize,
) -> Call:
    """Claim at most `at_most` jobs, and none more once their data has `at_most_bytes`, or `at_most_size` uncompressed.
    Read the reply with `claimed`.

    `token` identifies the call: sent again, it returns the same claims. Nothing is claimed while all `providers` are
    paused. The reply also holds the flags of the queues, `providers` and `routes`.
    """
    keys = [
        keyspace.PAUSE,
        keyspace.SUSPENDED,
        keyspace.claim(token),
        keyspace.worker(worker_name),
    ]
    for queue in queues:
        keys += [keyspace.queue(queue), keyspace.pause_of(queue), keyspace.leases(queue), keyspace.wip(queue)]
        keys += [keyspace.accepted(queue), keyspace.stopped(queue)]
    keys += flag_keys(providers, routes)
    prefixes = (keyspace.JOB, keyspace.EXECUTION, keyspace.EXECUTIONS)
    limits = (token, at_most, int(LEASE_SECONDS * 1000), worker_name)
    return CLAIM.call(keys, [*limits, *prefixes, at_most_bytes, len(queues), len(providers), at_most_size, *queues])


def claimed(reply: list[Any]) -> tuple[tuple[Claim, ...], list[int]]:
    """Reads the reply of `claim`: the claims, and the flags in the order of `pause.look`."""
    now_ms, flags, _, *rows = reply
    return tuple(_claim(row, now_ms) for row in rows), flags


def stopped_early(reply: list[Any]) -> bool:
    """Whether a claim stopped because of the entries that it had to remove or move: more jobs may wait."""
    return bool(reply[2])


def _claim(row: list[bytes | None], now_ms: int) -> Claim:
    job_id, execution_id, queue, data, accepted_ms, expires_ms, *counts, trail = row
    executions, crashes, attempts, run_ms, suspect, size = (_number(count, 0) for count in counts)
    return Claim(
        job_id=(job_id or b"").decode(),
        execution_id=(execution_id or b"").decode(),
        queue=(queue or b"").decode(),
        claimed_ms=now_ms,
        data=data or b"",
        accepted_ms=_number(accepted_ms, now_ms),
        expires_ms=_number(expires_ms, now_ms + 86_400_000),
        executions=executions,
        crashes=crashes,
        suspect=suspect,
        size=size or UNPACKED * len(data or b""),
        attempts=attempts,
        run_ms=run_ms,
        trail=trail or b"[]",
    )


def _number(value: bytes | None, default: int) -> int:
    try:
        return default if value is None else int(float(value))
    except (ValueError, OverflowError):
        return default


def extend(queue: str, leases: Sequence[str], unanswered: str | None = None) -> Call:
    """Extend leases, also those of the claim with the token `unanswered`, whose reply has not arrived.

    Reply: the `leases` (bytes) that are lost. Their jobs are no suspects: their worker is the one that asks.
    """
    keys = [keyspace.leases(queue)] + ([] if unanswered is None else [keyspace.claim(unanswered)])
    return EXTEND.call(keys, [int(LEASE_SECONDS * 1000), keyspace.JOB, *leases])


def begin(held: Claim, *, alone: bool) -> Call:
    """A suspect begins to run, `alone` or together with other suspects of its worker."""
    return BEGIN.call([keyspace.job(held.job_id)], [held.execution_id, "alone" if alone else "together"])


def promote(queue: str) -> Call:
    """Queue the scheduled jobs that are due. Reply: how many."""
    keys = [keyspace.scheduled(queue), keyspace.queue(queue)]
    return PROMOTE.call(keys, [PROMOTE_AT_MOST, keyspace.JOB, keyspace.WAKE])


def reap(queue: str, not_after_ms: int) -> Call:
    """Take jobs back from expired leases. Reply: [ids requeued, ids buried].

    Does nothing when it arrives after `not_after_ms` (Redis TIME): Redis was stuck, and leases expired without reason.
    """
    q = queue
    keys = [
        keyspace.leases(q),
        keyspace.wip(q),
        keyspace.queue(q),
        keyspace.failed(q),
        keyspace.accepted(q),
        keyspace.dead(q),
    ]
    prefixes = (keyspace.JOB, keyspace.EXECUTION, keyspace.EXECUTIONS)
    limits = (REAP_AT_MOST, CHARGES_THAT_BURY, KEEP_DEAD_SECONDS)
    return REAP.call(keys, [*limits, *prefixes, keyspace.WAKE, keyspace.RESULTS, not_after_ms])


def settle(
    held: Claim, outcome: Outcome, *, worker_name: str, attempts: int, run_ms: int, record: bytes = b""
) -> Command:
    """What commits an outcome; results that are sent together are stored by one script. `attempts` and `run_ms` are the job's
    totals including this execution. `record`: what the history counts of it.

    Reply: a value of `Settled`.
    """
    if isinstance(outcome, Done):
        return _complete(held, outcome, worker_name, run_ms, record)
    keys = [
        keyspace.job(held.job_id),
        keyspace.leases(held.queue),
        keyspace.wip(held.queue),
        keyspace.execution(held.job_id, held.execution_id),
        keyspace.executions(held.job_id),
        keyspace.accepted(held.queue),
    ]
    who = (held.job_id, held.execution_id)
    results, worker = keyspace.results(held.job_id), keyspace.worker(worker_name)
    match outcome:
        case Dead(reason, detail, trail, keep_seconds):
            keys += [results, keyspace.failed(held.queue), worker, keyspace.dead(held.queue)]
            counts = (worker_name, keep_seconds, attempts, run_ms)
            last_route = next((entry.route for entry in reversed(trail) if isinstance(entry, Attempt)), "")
            texts = (detail, _exc_string(reason, detail), _json(trail), last_route)
            return BURY.call(keys, [*who, reason, *counts, *texts, record])
        case Retry(wait_seconds, why, trail):
            waiting = Waiting(WaitReason.RETRY, detail=why)
            return _reschedule(keys, held, "retry", wait_seconds, waiting, trail, attempts, run_ms, record)
        case Park(wait_seconds, waiting, trail, in_turn):
            kind = "park in turn" if in_turn else "park"
            return _reschedule(keys, held, kind, wait_seconds, waiting, trail, attempts, run_ms, record)
        case Released(trail):
            keys += [keyspace.queue(held.queue)]
            return RELEASE.call(keys, [*who, keyspace.WAKE, attempts, run_ms, _json(trail), record])


def _complete(held: Claim, outcome: Done, worker_name: str, run_ms: int, record: bytes) -> Part:
    queue, job_id = held.queue, held.job_id
    shared = (keyspace.leases(queue), keyspace.wip(queue), keyspace.accepted(queue), keyspace.finished(queue))
    counted = (keyspace.worker(worker_name), keyspace.news(queue))
    of_job = (keyspace.job(job_id), keyspace.execution(job_id, held.execution_id), keyspace.executions(job_id))
    degraded = outcome.result.degraded is not None and not outcome.thrifty
    stored = (*encode_result(outcome.result), outcome.keep_seconds, run_ms, int(outcome.saved), int(degraded))
    return Part(
        COMPLETE,
        shared_keys=(*shared, *counted),
        shared_args=(DONE_DATA,),
        keys=(*of_job, keyspace.results(job_id)),
        args=(job_id, held.execution_id, *stored, record),
    )


def _reschedule(
    keys: Sequence[str],
    held: Claim,
    kind: str,
    wait_seconds: float,
    waiting: Waiting,
    trail: Trail,
    attempts: int,
    run_ms: int,
    record: bytes,
) -> Call:
    totals = (max(0, int(wait_seconds * 1000)), str(waiting), attempts, run_ms, _json(trail))
    why = (waiting.reason, " ".join(waiting.subjects))
    return RESCHEDULE.call(
        [*keys, keyspace.scheduled(held.queue)], [held.job_id, held.execution_id, kind, *totals, *why, record]
    )


def requeue(queue: str, job_ids: Sequence[str], *, token: str, who: str, generations: int) -> Call:
    """Requeue dead letters. `generations`: how often one may be requeued. `token` identifies the call for a resend.

    Reply: [ids requeued, ids refused because of their generation, ids that are no dead letter].
    """
    q = queue
    keys = [
        keyspace.failed(q),
        keyspace.queue(q),
        keyspace.accepted(q),
        keyspace.dead(q),
        keyspace.AUDIT,
        keyspace.stopped(q),
    ]
    return REQUEUE.call(keys, [token, who, generations, keyspace.JOB, keyspace.RESULTS, keyspace.WAKE, *job_ids])


def resolve(queue: str, result: JobResult, *, token: str, who: str, keep_seconds: int) -> Call:
    """Store a human's answer. Reply: committed | again | ended | unknown (see lua/resolve.lua)."""
    keys = [*withdrawn_from(queue, result.job_id), keyspace.finished(queue)]
    prefixes = (keyspace.EXECUTION, keyspace.EXECUTIONS)
    return RESOLVE.call(keys, [result.job_id, *prefixes, who, keep_seconds, token, *encode_result(result), DONE_DATA])


def discard(queue: str, job_ids: Sequence[str], *, token: str, who: str) -> Call:
    """Discard dead letters. Reply: [ids discarded, ids that are no dead letter]."""
    q = queue
    keys = [keyspace.failed(q), keyspace.canceled(q), keyspace.accepted(q), keyspace.dead(q), keyspace.AUDIT]
    return DISCARD.call(keys, [token, who, KEEP_CANCELLED_SECONDS, keyspace.JOB, keyspace.RESULTS, *job_ids])


def cancel_waiting(queue: str, tenant: str, job_ids: Sequence[str], *, token: str, who: str) -> Call:
    """Cancel waiting jobs of a tenant. Reply: [ids cancelled, ids that did not wait]."""
    q = queue
    keys = [keyspace.queue(q), keyspace.scheduled(q), keyspace.canceled(q), keyspace.accepted(q), keyspace.AUDIT]
    args = (token, who, KEEP_CANCELLED_SECONDS, keyspace.JOB, keyspace.RESULTS, tenant)
    return CANCEL_WAITING.call(keys, [*args, *job_ids])


def expire(queue: str) -> Call:
    """Bury the jobs that waited past their expiry. Reply: their ids."""
    q = queue
    keys = [keyspace.accepted(q), keyspace.scheduled(q), keyspace.failed(q), keyspace.dead(q), keyspace.stopped(q)]
    return EXPIRE.call(keys, [EXPIRE_AT_MOST, KEEP_DEAD_SECONDS, keyspace.JOB, keyspace.RESULTS])


def audit(queue: str, job_ids: Sequence[str]) -> Call:
    """Check accepted jobs. Reply: [ids queued again, ids lost, ids that RQ failed, ids that have ended]."""
    q = queue
    keys = [keyspace.accepted(q), keyspace.queue(q), keyspace.leases(q), keyspace.scheduled(q), keyspace.AUDIT]
    keys += [keyspace.failed(q), keyspace.dead(q)]
    return AUDIT.call(keys, [keyspace.JOB, keyspace.WAKE, keyspace.RESULTS, KEEP_DEAD_SECONDS, *job_ids])


def _json(trail: Trail) -> bytes:
    return to_json([entry.model_dump(exclude_defaults=True) for entry in trail])


def _exc_string(reason: str, detail: str) -> bytes:
    """The text of a failure in RQ's format: base64 of zlib (rq.results.Result)."""
    return b64encode(zlib.compress(f"{reason}: {detail}".encode()))
