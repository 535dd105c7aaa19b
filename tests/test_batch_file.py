"""Batch lines: what is accepted, and how a bad line is told without spoiling the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from producer.batch import BadLine, Line, error_line, output_line, read
from producer.job import DeadReason, JobResult, JobStatus

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
        (b"\xff\xfe", "", "is not JSON"),
        (b"[1]", "", "is not a JSON object"),
        (b"[" * 100_000, "", "is not JSON"),
        ({**GOOD, "custom_id": 7}, "custom_id", "valid string"),
        ({**GOOD, "custom_id": ""}, "custom_id", "at least 1 character"),
        ({**GOOD, "method": "GET"}, "method", "'POST'"),
        ({**GOOD, "url": "/v1/embeddings"}, "url", "'/v1/chat/completions'"),
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
