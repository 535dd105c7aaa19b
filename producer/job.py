"""LLMJob and JobResult: the contract between producers, workers and readers of results.

Both models are versioned JSON. In Redis a job is an RQ job (rq 2.12 format, JSON serializer) whose single argument is the
LLMJob, so RQ's tools can read it. Stock `rq worker` fails it without running anything (see `llm_job`).
"""

from __future__ import annotations

import json
import re
import zlib
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, Required

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict  # pydantic wants it before Python 3.12

from producer.answer_text import text_in
from producer.errors import InvalidJob, first_problem
from producer.strict_json import MOMENT, NUMBER, encode, invalid
from producer.trail import Attempt, TrailEntry
from producer.waiting import WaitReason

SCHEMA_VERSION = 2  # of jobs, what this release reads: 2 has `live` and `route`
LONGEST_ID = 128
_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_ID}}}")  # as in worker/queue/lua/claim.lua

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\w.@:/+-]+$")]


_encode_sorted = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"  # an execution failed; it waits for the next one
    PARKED = "parked"  # no route could take it; it waits, and has used up no execution
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (JobStatus.DONE, JobStatus.DEAD, JobStatus.CANCELLED)


class DeadReason(StrEnum):
    """Why a job is a dead letter: a closed set."""

    EXHAUSTED = "exhausted"  # every execution or attempt that its policy allows has failed
    EXPIRED = "expired"  # its answer would come too late to be worth anything
    REJECTED = "rejected"  # a provider's 4xx: the request is wrong, so no other route would accept it
    REFUSED = "refused"  # content filter or refusal: a human decides
    CRASHED = "crashed"  # three workers vanished while executing it
    MALFORMED = "malformed"  # it cannot be read as a job
    DISALLOWED = "disallowed"  # an RQ job that is not an LLM job; it is never run
    OVER_BUDGET = "over_budget"
    FAILED_BY_RQ = "failed_by_rq"  # one of RQ's own workers or tools took it and failed it


class Message(TypedDict):
    """One chat message. Its other fields (content, tool calls) are passed on unchecked."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]  # pydantic's documented way

    role: str


class ChatBody(TypedDict, total=False):
    """An OpenAI chat-completions body. The fields that routing needs are checked; all others are passed on unchecked."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    messages: Required[Annotated[list[Message], Field(min_length=1)]]
    n: Annotated[Literal[1], NUMBER]  # one job is one completion
    tools: list[Any] | None
    response_format: dict[str, Any] | None


class LLMJob(BaseModel):
    """One unit of work: a chat completion, and for whom it is.

    `body` is an OpenAI chat-completions body; its `model` is ignored, because the route sets it. With an `idempotency_key`,
    a resubmission returns the same job, within one tenant and for as long as the job is kept; without it every submission
    is a new job. `expires_after_seconds` overrides the job type's policy. `priority` 1 puts the job at the queue's head.
    `not_before`: the job is queued at this time, and counts as accepted then: Unix seconds, at most a year ahead; ISO 8601 text
    with its zone is read too. `live`: its answer's text can be read while it comes (failover:live:{id}). `route`: the name of the
    only route it may take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION), NUMBER] = 1
    job_type: Name = "default"
    body: ChatBody
    tenant_id: Name = "default"
    user_id: Annotated[str, StringConstraints(max_length=256)] = ""
    feature: Annotated[str, StringConstraints(max_length=256)] = ""
    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    priority: Annotated[Literal[0, 1], NUMBER] = 0
    expires_after_seconds: Annotated[float, Field(gt=0, le=90 * 86400), NUMBER] | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    not_before: Annotated[float, Field(gt=0), MOMENT] | None = None
    live: StrictBool = False
    route: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None

    def provider_key(self, job_id: str) -> str:
        """The Idempotency-Key header of every call for this job: a hash, different for each tenant, safe in a header."""
        return sha256(f"{self.tenant_id}\0{self.key_for(job_id)}".encode()).hexdigest()

    @classmethod
    def parse(cls, data: Any) -> LLMJob:
        """A job from plain data. Raises InvalidJob, which names the first wrong field."""
        if not isinstance(data, dict):
            raise InvalidJob("", "a job is an object with a `body`")
        if "messages" in data and "body" not in data:
            raise InvalidJob("body", 'is missing: wrap the chat body, as in {"body": {"messages": [...]}}')
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InvalidJob(*first_problem(error)) from None

    def fingerprint(self) -> str:
        """Hash of job type, body and route. The same idempotency key with another fingerprint is a conflict."""
        facts = {"type": self.job_type, "body": self.body} | ({"route": self.route} if self.route is not None else {})
        return sha256(_encode_sorted(facts).encode()).hexdigest()

    def key_for(self, job_id: str, fingerprint: str = "") -> str:
        """The idempotency key: the caller's, or the hash of user id, job id and input (SOP step 9). `fingerprint`: the job's,
        where it is known."""
        if self.idempotency_key is not None:
            return self.idempotency_key
        return sha256(f"{self.user_id}\0{job_id}\0{fingerprint or self.fingerprint()}".encode()).hexdigest()


class JobResult(BaseModel):
    """A job's state, and its result once it has ended. Money in US dollars (null if unknown), times in milliseconds.

    `queue_latency_ms` is the time waited and `run_ms` the time worked; the sum is the time to answer. `completion` is the
    provider's chat completion, unchanged. `attempts` counts HTTP calls; `failover_hops` counts the moves to a next route in
    the execution that answered. `cost_usd` is the cost of all attempts whose tokens are known; `baseline_cost_usd` is what
    the answer's tokens would have cost on the baseline route; `cost_delta_usd` is the difference. `trail` explains the
    routing: the plan, the routes that were not tried and why, and every attempt.
    """

    schema_version: int = 1
    job_id: str
    status: JobStatus
    completion: dict[str, Any] | None = None
    route: str | None = None
    provider: str | None = None
    model: str | None = None
    tier: Literal["hot", "warm"] | None = None
    attempts: int = 0
    failover_hops: int = 0
    usage: dict[str, Any] | None = None
    cost_usd: float | None = None
    baseline_cost_usd: float | None = None
    cost_delta_usd: float | None = None
    queue_latency_ms: int | None = None
    run_ms: int | None = None
    degraded: str | None = None
    cache_hit: bool = False  # the answer is from the cache: no provider was called
    truncated: bool = False  # the answer was cut off at its limit of tokens
    resolved_by: Literal["model", "human"] | None = None
    dead_reason: DeadReason | None = None
    dead_detail: str | None = None
    waiting_reason: WaitReason | None = None  # for programs; `waiting_for` is the text for people
    waiting_for: str | None = None
    waiting_until_ms: int | None = None  # Unix time
    trail: list[TrailEntry] = Field(default_factory=list)

    @property
    def attempted(self) -> list[Attempt]:
        """The attempts in the trail."""
        return [entry for entry in self.trail if isinstance(entry, Attempt)]

    @property
    def text(self) -> str:
        """The answer's text, empty where there is none: of parts the text without the thinking, of audio its transcript."""
        try:
            message = (self.completion or {})["choices"][0]["message"]
            content, audio = message.get("content"), message.get("audio")
        except (KeyError, IndexError, TypeError, AttributeError):
            return ""
        transcript = audio.get("transcript") if isinstance(audio, dict) else None
        return text_in(content) or (transcript if isinstance(transcript, str) else "")


def llm_job(_job: dict[str, Any]) -> NoReturn:
    """The function that RQ sees in an LLM job. Only failover-worker executes such jobs; `rq worker` gets this error."""
    raise RuntimeError("this job is executed by `failover-worker`, not by `rq worker`")


LLM_JOB = f"{llm_job.__module__}.{llm_job.__qualname__}"


class Encoded(NamedTuple):
    """A job as it is stored. `data`: the `data` field of RQ's job hash. `size`: bytes before it was compressed.
    `fingerprint`: the job's."""

    data: bytes
    size: int
    fingerprint: str


def json_of(job: LLMJob) -> bytes:
    """JSON [function, instance, args, kwargs], RQ's form of a job. The one rule for what a job may hold, at every door.

    Raises InvalidJob: a value that JSON does not have, text that is not Unicode or has a NUL, more than MOST_JOB_BYTES.
    """
    fields = _fields(job)
    encoded = encode([LLM_JOB, None, [fields], {}], fields)
    if len(encoded) > MOST_JOB_BYTES:
        what = f"a job of {len(encoded) / 1e6:.1f} MB is larger than the limit of {MOST_JOB_BYTES / 1e6:.0f} MB"
        raise InvalidJob("body", what)
    return encoded


def encode_job(job: LLMJob) -> Encoded:
    """The job as it is stored. Raises InvalidJob, as `json_of`."""
    encoded = json_of(job)
    try:
        fingerprint = job.fingerprint()
    except TypeError as error:  # names of several types, which cannot be sorted
        raise invalid(_fields(job), error) from None
    return Encoded(zlib.compress(encoded, 1), len(encoded), fingerprint)


def _fields(job: LLMJob) -> dict[str, Any]:
    """The job's fields as they are stored; its time is in the schedule. The body is the caller's own: pydantic would turn a set
    into a list. A worker of an older release leaves a job with newer fields to those of this one."""
    newer = {"schema_version": 2} if job.live or job.route is not None else {}
    return {**job.model_dump(exclude_defaults=True, exclude={"body", "not_before"}), **newer, "body": job.body}


def check_id(job_id: str) -> str:
    """The id, if it may be one: claims read no other. Raises InvalidJob."""
    if not _ID.fullmatch(job_id):
        what = f"{job_id!r:.80} is no id of a job: it consists of at most {LONGEST_ID} letters, digits, _ and -"
        raise InvalidJob("job_id", what)
    return job_id


class ForeignJob(Exception):
    """An RQ job that is not an LLM job. `function`: the function that it names."""

    def __init__(self, function: str) -> None:
        self.function = function
        super().__init__(function)


MOST_JOB_BYTES = 32_000_000  # of a job's JSON, at every door
READ_AT_MOST_BYTES = 2 * MOST_JOB_BYTES  # of a job that another tool may have written


def decode_job(data: bytes) -> LLMJob:
    """The LLMJob in RQ's `data` field.

    Raises ForeignJob for a job of another function, InvalidJob for data that cannot be read, NewerSchema for a job of a
    newer release. No function named in the data is ever imported or called.
    """
    try:
        unpacked = zlib.decompressobj().decompress(data, READ_AT_MOST_BYTES)
        function, _instance, args, _kwargs = from_json(unpacked)
    except (zlib.error, ValueError, TypeError):
        raise InvalidJob("data", "is not the JSON form of an RQ job") from None
    if function != LLM_JOB:
        raise ForeignJob(str(function)[:200])
    if not isinstance(args, list) or len(args) != 1:
        raise InvalidJob("data", "does not hold one job")
    version = args[0].get("schema_version", 1) if isinstance(args[0], dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise NewerSchema(version)
    return LLMJob.parse(args[0])


class NewerSchema(Exception):
    """A job written by a newer release than this worker's."""

    def __init__(self, version: int) -> None:
        self.version = version
        super().__init__(f"schema version {version} is newer than this worker's {SCHEMA_VERSION}")
