"""A job hash and its result stream -> JobResult, and back. The stream holds RQ's `Result` entries (rq 2.12 format).

Most of what Redis holds is results of done jobs. RQ reads only base64 of plain JSON, which is a third larger than the text.
So the entry's `return_value` has the answer and its route, and our field `more` has the rest of the result, compressed.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from producer import keyspace
from producer.job import LLM_JOB, DeadReason, JobResult, JobStatus
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

# What replaces the `data` of a done job: RQ's tools still read its function. The prompt ends with the job.
DONE_DATA = to_json([LLM_JOB, None, [], {}])

IN_RETURN_VALUE = ("job_id", "status", "route", "completion")
# Text like that of most results, which is not stored again with each: 560 bytes become 60. Results in Redis can only be read
# with the words that they were written with: never change a word.
_WORDS = (
    b',"ambiguous":true,"probe":true,"status":500,"detail":"","key":"environment _API_KEY","dropped":["max_tokens"],'
    b'"breaker":"half-open","rejected":"","code":"lacks_capability","may_cost_usd":0.0,"estimates_usd":{"",'
    b'"spent_usd":0.0,"p95_ms":{"","max_cost_usd":0.0,"reduced":"","degraded":"","cache_hit":true,"truncated":true,'
    b'"failover_hops":1,"outcome":"server_error","outcome":"timeout","outcome":"rate_limited","provider":"anthropic",'
    b'"provider":"google","model":"claude-","tier":"warm"{"schema_version":1,"provider":"openai","model":"gpt-4o-mini",'
    b'"tier":"hot","attempts":1,"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,'
    b'"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},'
    b'"cost_usd":0.0001,"baseline_cost_usd":0.0001,"cost_delta_usd":0.0,"queue_latency_ms":1,"run_ms":2,'
    b'"resolved_by":"model","trail":[{"execution":1,"order":"listed","candidates":["openai/gpt-4o-mini"],'
    b'"baseline":"openai/gpt-4o-mini"},{"execution":1,"route":"openai/gpt-4o-mini","tier":"hot","outcome":"ok",'
    b'"ms":1,"at_ms":179,"prompt_tokens":1,"completion_tokens":2,"cost_usd":0.0001}]}'
)
_WINDOW, _MEMORY = -12, 5  # of zlib: raw, and small, because setting up the usual 32 kB costs eight times as much CPU


def lost_facts(text: bytes) -> tuple[str, str, int]:
    """The record of a lost job: its queue, why it is lost, and when that was noticed (Unix ms, 0 if it is not known)."""
    try:
        facts = from_json(text)
        return str(facts["queue"]), str(facts["why"]), int(facts["at_ms"])
    except (ValueError, TypeError, KeyError):  # written by an older release: `queue: why`
        queue, _, why = text.decode(errors="replace").partition(": ")
        return queue, why, 0


def status_of(rq_status: bytes) -> JobStatus:
    """Our status for RQ's. (For RQ, parked, retrying and delayed jobs are all `scheduled`.)"""
    return _STATUS.get(rq_status.decode(errors="replace"), JobStatus.QUEUED)


def has_ended(rq_status: bytes | None) -> bool:
    """Whether a job with this field `status` has ended; one that is unknown has."""
    return rq_status is None or status_of(rq_status).ended


def encode_result(result: JobResult) -> tuple[bytes, bytes]:
    """The fields `return_value` (base64 of JSON, as RQ reads it) and `more` (compressed) of a result's stream entry."""
    front = {name: getattr(result, name) for name in IN_RETURN_VALUE}
    shown = {name: value for name, value in front.items() if value is not None}
    rest = result.model_dump_json(exclude=set(IN_RETURN_VALUE), exclude_none=True, exclude_defaults=True)
    zlibs = zlib.compressobj(
        zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, _WINDOW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, _WORDS
    )
    return b64encode(to_json(shown, inf_nan_mode="null")), zlibs.compress(rest.encode()) + zlibs.flush()


def result_commands(job_id: str) -> list[Command]:
    """The two commands that read a job's result; `result_of` reads the replies."""
    return [
        ("HMGET", keyspace.job(job_id), *FIELDS),
        answer_command(job_id),
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
    if waits and waiting == "delay":
        job_status = JobStatus.QUEUED
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


def answer_command(job_id: str) -> Command:
    """The command that reads the result of a done job alone; `answer_of` reads the reply."""
    return ("XREVRANGE", keyspace.results(job_id), "+", "-", "COUNT", 1)


def answer_of(entries: Any) -> JobResult | None:
    """The newest stream entry -> the result of a done job, without its trail; None if it is none. It is not validated: we wrote
    it."""
    facts = _facts(entries)
    if facts is None:
        return None
    return JobResult.model_construct(**{**facts, "status": JobStatus.DONE, "trail": []})


def _stored(entries: Any) -> JobResult | None:
    facts = _facts(entries)
    return None if facts is None else JobResult.model_validate(facts)


def _facts(entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> dict[str, Any] | None:
    """What the newest stream entry says of a done job; None if it is none."""
    entry = entries[0][1] if entries else {}
    if b"return_value" not in entry:
        return None
    return _more(entry.get(b"more")) | dict(from_json(b64decode(entry[b"return_value"])))


def _more(compressed: bytes | None) -> dict[str, Any]:
    """The rest of a result; {} for an entry that an older release wrote, which has all in its `return_value`."""
    if compressed is None:
        return {}
    facts = from_json(zlib.decompressobj(_WINDOW, _WORDS).decompress(compressed))
    return facts if isinstance(facts, dict) else {}


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
