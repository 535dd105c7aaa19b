"""Batch lines: what is accepted, and how a bad line is told without spoiling the others."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from producer.batch import BadLine, Line, WrongFile, error_line, failed, output_line, read
from producer.job import DeadReason, JobResult, JobStatus
from producer.trail import Attempt, TrailEntry

GOOD: dict[str, Any] = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
}


def lines(*given: Any) -> list[Line | BadLine]:
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in given]
    return list(read(raw, job_type="batch", tenant_id="acme"))


def test_a_good_line_is_a_job_that_knows_itself_again() -> None:
    (one,), (again,) = lines(GOOD), lines(GOOD)
    (other,) = lines({**GOOD, "body": {**GOOD["body"], "temperature": 0}})
    assert isinstance(one, Line) and isinstance(again, Line) and isinstance(other, Line)
    assert one.job.tenant_id == "acme"
    assert one.job.body == GOOD["body"]
    assert one.job.idempotency_key == again.job.idempotency_key != other.job.idempotency_key


@pytest.mark.parametrize(
    ("line", "field", "what"),
    [
        (b"{nope", "", "is not JSON"),
        (b'{"custom_id": "\\ud800"}', "", "is not JSON"),
        (b'{"custom_id": NaN}', "", "is not JSON"),
        (b"\xfe", "", "is not JSON"),
        (b"[1]", "", "is not a JSON object"),
        (b"[" * 100_000, "", "is not JSON"),
        ({**GOOD, "custom_id": [7]}, "custom_id", "valid string"),
        ({**GOOD, "custom_id": ""}, "custom_id", "at least 1 character"),
        ({**GOOD, "method": "GET"}, "method", "should match pattern"),
        ({**GOOD, "url": "/v1/embeddings"}, "url", "'/v1/embeddings' is not run here"),
        ({**GOOD, "url": "/v1/completions"}, "url", "only chat completions"),
        ({"custom_id": "x", "params": {"messages": []}}, "params", "Anthropic's message batches"),
        ({"key": "x", "request": {"contents": []}}, "request", "Gemini's batches"),
        ({"recordId": "x", "modelInput": {"messages": []}}, "modelInput", "Bedrock's batches"),
        ({"requests": [GOOD]}, "requests", "one request that has all lines"),
        ({"custom_id": "x", "body": {"input": "hi"}}, "body.input", "OpenAI's responses"),
        ({"custom_id": "x", "body": {"prompt": "hi"}}, "body.prompt", "OpenAI's completions"),
        ({**GOOD, "custom_id": "a\0"}, "custom_id", "NUL"),
        ({**GOOD, "body": {"messages": [{"role": "user", "content": "a\0"}]}}, "body.messages.0.content", "NUL"),
        ({**GOOD, "note\0": 1}, "", "NUL"),
        ({**GOOD, "body": "hi"}, "body", "should be an object"),
        ({**GOOD, "body": {}}, "body.messages", "is missing"),
        ({**GOOD, "body": {"messages": []}}, "body.messages", "at least 1 item"),
        ({**GOOD, "body": {"messages": [{"content": "x"}]}}, "body.messages.0.role", "is missing"),
        ({**GOOD, "body": {**GOOD["body"], "n": 3}}, "body.n", "Input should be 1"),
    ],
)
def test_a_bad_line_is_told_by_number_and_field(line: Any, field: str, what: str) -> None:
    first, bad, last = lines({**GOOD, "custom_id": "1"}, line, {**GOOD, "custom_id": "3"})
    assert isinstance(first, Line) and isinstance(last, Line)
    assert isinstance(bad, BadLine)
    assert (bad.number, bad.field) == (2, field)
    assert what in bad.what
    assert error_line(bad)["error"]["message"] == str(bad)


@pytest.mark.parametrize(
    "other",
    [
        {"url": "/chat/completions"},
        {"url": "/v4/chat/completions"},
        {"url": "/openai/deployments/d/chat/completions?api-version=2026-01-01"},
        {"url": "https://api.mistral.ai/v1/chat/completions"},
        {"url": "v1/chat/completions"},
        {"url": ""},
        {"method": "post"},
        {"method": None, "url": None},
        {"custom_id": 7},
        {"body": {**GOOD["body"], "n": None}},
    ],
)
def test_lines_as_others_write_them_are_jobs_too(other: dict[str, Any]) -> None:
    (line,) = lines({**GOOD, **other})
    assert isinstance(line, Line) and line.custom_id == str(other.get("custom_id", "a"))
    (bare,) = lines({name: value for name, value in GOOD.items() if name in ("custom_id", "body")})
    assert isinstance(bare, Line)


def test_a_field_beside_the_body_is_named() -> None:
    plain, more = lines(GOOD, {**GOOD, "custom_id": "b", "temperature": 0, "model": "m"})
    assert isinstance(plain, Line) and isinstance(more, Line)
    assert (plain.ignored, set(more.ignored)) == ((), {"temperature", "model"})
    assert "temperature" not in more.job.body


def test_a_byte_order_mark_costs_no_line() -> None:
    one, two = lines(b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), {**GOOD, "custom_id": "b"})
    assert isinstance(one, Line) and isinstance(two, Line)


@pytest.mark.parametrize(
    ("first", "what"),
    [
        (gzip.compress(json.dumps(GOOD).encode(), mtime=0), "gzip"),
        (json.dumps(GOOD).encode("utf-16"), "UTF-16"),
        (json.dumps(GOOD).encode("utf-16-be"), "UTF-16"),
        (json.dumps([GOOD, GOOD]).encode(), "JSON array"),
        (b"[", "JSON array"),
        (b'["a prompt", "another"]', "JSON array"),
        (b"{", "several lines"),
        (b'{"custom_id": "a", "body": {', "several lines"),
        (b'{"custom_id": "a",\r\n', "several lines"),
        (b"PK\x03\x04 more", "zip archive or an Excel file"),
        (b"\x28\xb5\x2f\xfd more", "zstd"),
    ],
)
def test_a_file_of_another_form_is_named_once_and_nothing_of_it_runs(first: bytes, what: str) -> None:
    with pytest.raises(WrongFile, match=what):
        lines(first, b"more")


def test_what_a_provider_refused_is_its_answer() -> None:
    trail: list[TrailEntry] = [
        Attempt(execution=1, route="a", tier="hot", outcome="content_filter", status=400, ms=1, at_ms=1)
    ]
    dead = JobResult(job_id="j", status=JobStatus.DEAD, dead_reason=DeadReason.REFUSED, dead_detail="hate", trail=trail)
    line = output_line("a", "j", dead)
    assert line["error"] is None and line["response"]["status_code"] == 400 and failed(line)
    assert line["response"]["body"]["error"]["message"] == "hate"


def test_blank_lines_are_skipped_and_a_repeated_custom_id_is_told() -> None:
    one, twice = lines(b"", GOOD, b"  \n", GOOD)
    assert isinstance(one, Line) and isinstance(twice, BadLine)
    assert str(twice) == "line 4: custom_id: 'a' is already that of line 2"


def test_output_lines_have_openais_form() -> None:
    done = JobResult(job_id="j", status=JobStatus.DONE, completion={"id": "c"})
    dead = JobResult(job_id="j", status=JobStatus.DEAD, dead_reason=DeadReason.EXHAUSTED, dead_detail="all down")
    assert output_line("a", "j", done) == {
        "id": "batch_req_j",
        "custom_id": "a",
        "response": {"status_code": 200, "request_id": "j", "body": {"id": "c"}},
        "error": None,
    }
    assert output_line("a", "j", dead)["error"] == {"code": "exhausted", "message": "all down"}
    assert output_line("a", "j", None)["error"]["code"] == "result_gone"
