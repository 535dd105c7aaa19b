"""Batch files in the OpenAI Batch format: JSONL in, JSONL out. A line that cannot be read does not affect other lines.

The idempotency key of a line is a hash of its custom_id, body and job type. So the same file, submitted again, finds the
jobs of the first time, and nothing is paid twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producer.errors import InvalidJob, first_problem
from producer.job import JobResult, JobStatus, LLMJob, json_of
from producer.strict_json import parse


@dataclass(frozen=True)
class Line:
    """An input line that is a valid job. `number`: of the line, from 1."""

    number: int
    custom_id: str
    job: LLMJob


@dataclass(frozen=True)
class BadLine:
    """An input line that is not. `field`: dotted path of the wrong field, "" for the whole line. `what`: what is wrong."""

    number: int
    custom_id: str | None
    field: str
    what: str

    def __str__(self) -> str:
        return f"line {self.number}: " + (f"{self.field}: {self.what}" if self.field else self.what)


class _Form(BaseModel):
    """An input line as OpenAI's Batch API documents it."""

    model_config = ConfigDict(extra="allow")

    custom_id: Annotated[str, Field(min_length=1, max_length=512)]
    method: Literal["POST"]
    url: Literal["/v1/chat/completions"]
    body: dict[str, Any]


class Reader:
    """Reads the lines of one file, one after the other."""

    def __init__(self, *, job_type: str, tenant_id: str, feature: str = "") -> None:
        self._fields = {"job_type": job_type, "tenant_id": tenant_id, "feature": feature}
        self._seen: dict[str, int] = {}
        self._number = 0

    def line(self, raw: bytes) -> Line | BadLine | None:
        """The next line; None for a blank one."""
        self._number += 1
        if not raw.strip():
            return None
        line = _read_line(self._number, raw, self._fields)
        if isinstance(line, Line):
            first = self._seen.setdefault(line.custom_id, self._number)
            if first != self._number:
                what = f"{line.custom_id!r} is already that of line {first}"
                line = BadLine(self._number, line.custom_id, "custom_id", what)
        return line


def read(lines: Iterable[bytes], *, job_type: str, tenant_id: str, feature: str = "") -> Iterator[Line | BadLine]:
    """Yield every line that is not blank, in order."""
    reader = Reader(job_type=job_type, tenant_id=tenant_id, feature=feature)
    return (line for raw in lines if (line := reader.line(raw)) is not None)


def _read_line(number: int, raw: bytes, job_fields: dict[str, str]) -> Line | BadLine:
    try:
        data = parse(raw)
    except ValueError as error:
        return BadLine(number, None, "", f"is not JSON: {error}")
    custom_id = data.get("custom_id") if isinstance(data, dict) else None
    known_id = custom_id if isinstance(custom_id, str) else None
    if not isinstance(data, dict):
        return BadLine(number, None, "", "is not a JSON object")
    try:
        form = _Form.model_validate(data)
        key = sha256(
            json.dumps([job_fields["job_type"], form.custom_id, form.body], sort_keys=True).encode()
        ).hexdigest()
        job = LLMJob.parse({**job_fields, "body": form.body, "idempotency_key": f"batch:{key}"})
        json_of(job)  # raises for what could not be submitted
        return Line(number, form.custom_id, job)
    except ValidationError as error:
        return BadLine(number, known_id, *first_problem(error))
    except InvalidJob as error:
        return BadLine(number, known_id, error.field, error.what)


def output_line(custom_id: str, job_id: str, result: JobResult | None) -> dict[str, Any]:
    """The output line of a job that has ended. `result` None: it is past its retention."""
    line: dict[str, Any] = {"id": f"batch_req_{job_id}", "custom_id": custom_id, "response": None, "error": None}
    if result is None:
        line["error"] = {"code": "result_gone", "message": f"job {job_id} is past its retention (policies/jobs.yaml)"}
    elif result.status is JobStatus.DONE and result.completion is not None:
        line["response"] = {"status_code": 200, "request_id": job_id, "body": result.completion}
    else:
        code = result.dead_reason or result.status
        line["error"] = {"code": str(code), "message": result.dead_detail or f"job {job_id} is {result.status}"}
    return line


def error_line(bad: BadLine) -> dict[str, Any]:
    """The output line of an input line that could not be read."""
    error = {"code": "invalid_line", "message": str(bad)}
    return {"id": f"batch_line_{bad.number}", "custom_id": bad.custom_id, "response": None, "error": error}
