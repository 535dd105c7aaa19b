"""A job hash and its result stream -> JobResult. The result stream holds RQ's `Result` entries (rq 2.12 format)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from producer import keyspace
from producer.job import DeadReason, JobResult, JobStatus
from producer.keyspace import JobField
from producer.scripts import Command
from producer.waiting import WaitReason

FIELDS = (
    "status",
    JobField.WAITING,
    JobField.WAITING_REASON,
    JobField.WAITING_FOR,
    JobField.WAITING_UNTIL,
    JobField.ATTEMPTS,
    JobField.RUN_MS,
    JobField.TRAIL,
    JobField.DEAD_REASON,
    JobField.DEAD_DETAIL,
)

_STATUS = {
    "queued": JobStatus.QUEUED,
    "started": JobStatus.RUNNING,
    "scheduled": JobStatus.RETRYING,
    "finished": JobStatus.DONE,
    "failed": JobStatus.DEAD,
    "stopped": JobStatus.DEAD,
    "canceled": JobStatus.CANCELLED,
}


def lost_facts(text: bytes) -> tuple[str, str, int]:
    """The record of a lost job: its queue, why it is lost, and when that was noticed (Unix ms, 0 if it is not known)."""
    try:
        facts = from_json(text)
        return str(facts["queue"]), str(facts["why"]), int(facts["at_ms"])
    except (ValueError, TypeError, KeyError):  # written by an older release: `queue: why`
        queue, _, why = text.decode(errors="replace").partition(": ")
        return queue, why, 0


def status_of(rq_status: bytes) -> JobStatus:
    """Our status for RQ's. (For RQ, parked and retrying jobs are both `scheduled`.)"""
    return _STATUS.get(rq_status.decode(errors="replace"), JobStatus.QUEUED)


def encode_result(result: JobResult) -> bytes:
    """The `return_value` of an RQ result entry: base64 of the JSON."""
    return b64encode(result.model_dump_json(exclude_none=True).encode())


def result_commands(job_id: str) -> list[Command]:
    """The two commands that read a job's result; `result_of` reads the replies."""
    return [
        ("HMGET", keyspace.job(job_id), *FIELDS),
        ("XREVRANGE", keyspace.results(job_id), "+", "-", "COUNT", 1),
    ]


def result_of(job_id: str, fields: Any, entries: Any) -> JobResult | None:
    """HMGET of FIELDS and the newest stream entry -> JobResult; None when there is no such job."""
    if fields[0] is None:
        return None
    _, waiting, why, waiting_for, until, attempts, run_ms, trail, reason, detail = map(_text, fields)
    job_status = status_of(fields[0])
    if job_status is JobStatus.DONE and (stored := _stored(entries)) is not None:
        return stored
    if job_status is JobStatus.RETRYING and waiting in ("park", "park in turn"):
        job_status = JobStatus.PARKED
    waits = job_status in (JobStatus.RETRYING, JobStatus.PARKED)
    return JobResult(
        job_id=job_id,
        status=job_status,
        attempts=int(attempts or 0),
        run_ms=int(run_ms) if run_ms else None,
        dead_reason=DeadReason(reason) if reason in set(DeadReason) else None,
        dead_detail=detail,
        waiting_reason=WaitReason(why) if waits and why in set(WaitReason) else None,
        waiting_for=waiting_for if waits else None,
        waiting_until_ms=int(until) if waits and until else None,
        trail=from_json(trail) if trail else [],
    )


def _stored(entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> JobResult | None:
    if not entries or b"return_value" not in entries[0][1]:
        return None
    return JobResult.model_validate(from_json(b64decode(entries[0][1][b"return_value"])))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
