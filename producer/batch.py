"""Batch files in the OpenAI Batch format: JSONL in, JSONL out. A line that cannot be read does not affect other lines.

The idempotency key of a line is a hash of its custom_id, body and job type. So the same file, submitted again, finds the
jobs of the first time, and nothing is paid twice.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from producer.errors import InvalidJob, UsageError, first_problem
from producer.job import MOST_JOB_BYTES, DeadReason, JobResult, JobStatus, LLMJob, json_of
from producer.strict_json import NUL, first_fault, has_nul, parse


@dataclass(frozen=True)
class Line:
    """An input line that is a valid job. `number`: of the line, from 1."""

    number: int
    custom_id: str
    job: LLMJob
    size: int  # bytes of the line
    ignored: tuple[str, ...] = ()  # its fields beside `body`, which mean nothing


@dataclass(frozen=True)
class BadLine:
    """An input line that is not. `field`: dotted path of the wrong field, "" for the whole line. `what`: what is wrong."""

    number: int
    custom_id: str | None
    field: str
    what: str

    def __str__(self) -> str:
        return f"line {self.number}: " + (f"{self.field}: {self.what}" if self.field else self.what)


CHUNK, CHUNK_BYTES = 200, 4_000_000  # of lines that are handled together
LONGEST_LINE = 2 * MOST_JOB_BYTES  # bytes: escapes may double a job


class WrongFile(UsageError):
    """A file that is no batch file at all: nothing of it is run."""


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class _Form(BaseModel):
    """An input line as OpenAI's Batch API documents it, and as others write it: with another prefix of the URL or a full one
    (Azure, Zhipu), or without method and url (Mistral)."""

    model_config = ConfigDict(extra="allow")

    custom_id: Annotated[str, StringConstraints(min_length=1, max_length=512), BeforeValidator(_as_text)]
    method: Annotated[str, Field(pattern=r"^(?i:post)$")] | None = None
    url: str | None = None
    body: dict[str, Any]


CHAT = re.compile(r"(^|/)chat/completions/?(\?\S{0,500})?$")
_OTHERS = {  # what a line without a `body` is: its field, and whose form it has
    "params": "Anthropic's message batches",
    "requests": "one request that has all lines",
    "request": "Gemini's batches",
    "contents": "Gemini's requests",
    "modelInput": "Bedrock's batches",
    "prompt": "prompts",
    "input": "OpenAI's responses or embeddings",
    "messages": "chat bodies without an id",
}
_OTHER_BODIES = {  # the same for a body without `messages`
    "input": "OpenAI's responses or embeddings",
    "prompt": "OpenAI's completions",
    "contents": "Gemini's requests",
}
_PACKED = {  # how files begin that are no text
    b"\x1f\x8b": "compressed with gzip — unpack it first",
    b"PK\x03\x04": "a zip archive or an Excel file — unpack it, or save it as CSV",
    b"\x28\xb5\x2f\xfd": "compressed with zstd — unpack it first",
    b"\xfd7zXZ": "compressed with xz — unpack it first",
    b"BZh": "compressed with bzip2 — unpack it first",
    b"PAR1": "a Parquet file — save it as JSON lines",
    codecs.BOM_UTF16_LE: "UTF-16 — save it as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 — save it as UTF-8",
}
_HEAD = 4096  # bytes of a file that say what it is


class Reader:
    """Reads the lines of one file, one after the other."""

    def __init__(self, *, job_type: str, tenant_id: str, feature: str = "") -> None:
        self._fields = {"job_type": job_type, "tenant_id": tenant_id, "feature": feature}
        self._seen: dict[str, int] = {}
        self._number = 0
        self._began = False

    def line(self, raw: bytes) -> Line | BadLine | None:
        """The next line; None for a blank one. Raises WrongFile for the first line of a file of another form."""
        self._number += 1
        if self._number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if not raw or raw.isspace():
            return None
        if not self._began and (what := not_text(raw) or _other_json(raw)):
            raise WrongFile(f"it is {what}: a batch file has one JSON object on each line, in UTF-8")
        self._began = True
        line = _read_line(self._number, raw, self._fields)
        if isinstance(line, Line):
            first = self._seen.setdefault(line.custom_id, self._number)
            if first != self._number:
                what = f"{line.custom_id!r} is already that of line {first}"
                line = BadLine(self._number, line.custom_id, "custom_id", what)
        return line

    def prompt(self, number: int, text: str, field: str = "") -> Line | BadLine:
        """The prompt on line `number`; the line's id is made from its number. `field`: the prompt's name in errors."""
        custom_id = f"line-{number}"
        if not text.strip():
            return BadLine(number, custom_id, field, "is empty")
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            return BadLine(number, custom_id, field, "is not UTF-8 — save the file as UTF-8")
        try:
            job = _job(custom_id, {"messages": [{"role": "user", "content": text}]}, self._fields)
        except InvalidJob as error:
            return BadLine(number, custom_id, field, error.what)
        return Line(number, custom_id, job, size)


def chunks(parsed: Iterable[Line | BadLine]) -> Iterator[list[Line | BadLine]]:
    """The lines in chunks of at most CHUNK lines and about CHUNK_BYTES."""
    chunk: list[Line | BadLine] = []
    size = 0
    for line in parsed:
        chunk.append(line)
        size += line.size if isinstance(line, Line) else 0
        if len(chunk) >= CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def read(lines: Iterable[bytes], *, job_type: str, tenant_id: str, feature: str = "") -> Iterator[Line | BadLine]:
    """Yield every line that is not blank, in order."""
    reader = Reader(job_type=job_type, tenant_id=tenant_id, feature=feature)
    return (line for raw in lines if (line := reader.line(raw)) is not None)


def not_text(head: bytes) -> str:
    """What a file is that begins with `head` and is no text in UTF-8; "" if it may be."""
    for begins, what in _PACKED.items():
        if head.startswith(begins):
            return what
    return "UTF-16 — save it as UTF-8" if b"\0" in head[:64] else ""


def _other_json(first: bytes) -> str:
    """What a file is whose first line cannot be that of a batch file; "" if it can."""
    head, end = first[:_HEAD].lstrip(), first[-_HEAD:].rstrip()
    if head.startswith(b"["):
        return "a JSON array"
    return "JSON over several lines" if head.startswith(b"{") and end.endswith((b"{", b"[", b",", b":")) else ""


def _read_line(number: int, raw: bytes, job_fields: dict[str, str]) -> Line | BadLine:
    if len(raw) > LONGEST_LINE:
        return BadLine(number, None, "", f"is longer than the limit of {LONGEST_LINE / 1e6:.0f} MB")
    try:
        data = parse(raw)
    except ValueError as error:
        return BadLine(number, None, "", f"is not JSON: {str(error).replace(' at line 1 column ', ' at character ')}")
    if not isinstance(data, dict):
        return BadLine(number, None, "", "is not a JSON object")
    custom_id = _as_text(data.get("custom_id"))
    known_id = custom_id if isinstance(custom_id, str) else None
    if has_nul(raw):
        return BadLine(number, known_id, *(first_fault(data) or ("", NUL)))
    if other := _other_form(data):
        return BadLine(number, known_id, *other)
    try:
        form = _Form.model_validate(data)
        if form.url and not CHAT.search(form.url):
            return BadLine(number, known_id, "url", f"{form.url!r:.100} is not run here, only chat completions are")
        job = _job(form.custom_id, form.body, job_fields)
        return Line(number, form.custom_id, job, len(raw), tuple(form.model_extra or ()))
    except ValidationError as error:
        return BadLine(number, known_id, *first_problem(error))
    except InvalidJob as error:
        return BadLine(number, known_id, error.field, error.what)


def _other_form(data: dict[str, Any]) -> tuple[str, str] | None:
    """The field that shows whose form the line has, and what is wrong, if it is not OpenAI's form of a chat completion."""
    body = data.get("body")
    if "body" not in data and (name := next((each for each in _OTHERS if each in data), None)):
        return name, f"the line has the form of {_OTHERS[name]}; wanted: custom_id and body"
    if not isinstance(body, dict) or "messages" in body or data.get("url"):
        return None
    if name := next((each for each in _OTHER_BODIES if each in body), None):
        return f"body.{name}", f"the body has the form of {_OTHER_BODIES[name]}; wanted: messages"
    return None


def _job(custom_id: str, body: dict[str, Any], job_fields: dict[str, str]) -> LLMJob:
    """Raises InvalidJob."""
    body = {name: value for name, value in body.items() if name != "n" or value is not None}
    key = sha256(json.dumps([job_fields["job_type"], custom_id, body], sort_keys=True).encode()).hexdigest()
    job = LLMJob.parse({**job_fields, "body": body, "idempotency_key": f"batch:{key}"})
    json_of(job)  # raises for what could not be submitted
    return job


def failed(line: dict[str, Any]) -> bool:
    """Whether an output line has no answer."""
    response = line["response"]
    return response is None or response["status_code"] >= 400


_REFUSED = (DeadReason.REJECTED, DeadReason.REFUSED)


def output_line(custom_id: str, job_id: str, result: JobResult | None) -> dict[str, Any]:
    """The output line of a job that has ended. `result` None: it is past its retention."""
    line: dict[str, Any] = {"id": f"batch_req_{job_id}", "custom_id": custom_id, "response": None, "error": None}
    if result is None:
        line["error"] = {"code": "result_gone", "message": f"job {job_id} is past its retention (policies/jobs.yaml)"}
    elif result.status is JobStatus.DONE and result.completion is not None:
        line["response"] = {"status_code": 200, "request_id": job_id, "body": result.completion}
    elif result.dead_reason in _REFUSED and (last := next(reversed(result.attempted), None)):  # a provider's own answer
        told = {"message": result.dead_detail, "type": "invalid_request_error", "code": last.outcome, "param": None}
        status = last.status if last.status and 400 <= last.status < 500 else 400
        line["response"] = {"status_code": status, "request_id": job_id, "body": {"error": told}}
    else:
        code = result.dead_reason or result.status
        line["error"] = {"code": str(code), "message": result.dead_detail or f"job {job_id} is {result.status}"}
    return line


def error_line(bad: BadLine) -> dict[str, Any]:
    """The output line of an input line that could not be read."""
    error = {"code": "invalid_line", "message": str(bad)}
    return {"id": f"batch_line_{bad.number}", "custom_id": bad.custom_id, "response": None, "error": error}
