"""The taxonomy: each row a real shape of an answer -> what we do and what the breaker learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import failure_table
from worker.errors.catalog import STATUS, Action, Breaker, Failure
from worker.errors.classify import Broke, Broken, Reply, classify
from worker.errors.codes import CODES
from worker.errors.wordings import FAMILIES

NOW = 1_763_700_000.0


def answer(content: Any = "hi", finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}]}


def error(message: str = "", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


def judged(status: int, body: Any, **headers: str) -> Failure | None:
    return classify(Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body), NOW)


ANSWERS = Path(__file__).parent / "answers"
RECORDED: list[tuple[str, dict[str, Any]]] = [
    (f"{path.stem}-{number}-{row['status']}-{(row['means'] or {'code': 'answer'})['code']}", row)
    for path in sorted(ANSWERS.glob("*.yaml"))
    for number, row in enumerate(yaml.safe_load(path.read_text()))
]


@pytest.mark.parametrize("row", [row for _, row in RECORDED], ids=[name for name, _ in RECORDED])
def test_every_recorded_answer(row: dict[str, Any]) -> None:
    body = row["body"]
    text = body if isinstance(body, str) else ""
    failure = classify(Reply(row["status"], row.get("headers", {}), None if text else body, text=text), NOW)
    if row["means"] is None:  # recorded of a good answer
        assert failure is None
        return
    assert failure is not None
    means = {
        "scope": "route",
        "cooldown": 0,
        "retries": 5,
        "retry_after": None,
        "parameter": "",
        "ambiguous": False,
        "instead": "",
    }
    for name, expected in {**means, **row["means"]}.items():
        assert getattr(failure, name) == (pytest.approx(expected) if isinstance(expected, float) else expected), name


def test_the_taxonomy_is_covered_by_recorded_answers() -> None:
    known = {failure.code for failure in [*STATUS.values(), *CODES.values(), *(family.failure for family in FAMILIES)]}
    covered = {row["means"]["code"] for _, row in RECORDED if row["means"]}
    assert known - covered == set()


@pytest.mark.parametrize(
    "body",
    [answer(), answer("", finish="length"), answer("cut off", finish="length"), answer(None, tool_calls=[{"id": "1"}])],
)
def test_what_is_an_answer(body: dict[str, Any]) -> None:
    assert judged(200, body) is None


@pytest.mark.parametrize(
    ("how", "code", "action", "ambiguous"),
    [
        (Broke.UNREACHABLE, "unreachable", Action.RETRY, False),
        (Broke.RESET, "reset", Action.FAILOVER, True),
        (Broke.SILENT, "timeout", Action.FAILOVER, True),
        (Broke.NO_TOKEN, "slow_first_token", Action.FAILOVER, True),
        (Broke.STALLED, "stalled", Action.FAILOVER, True),
        (Broke.CUT, "stream_cut", Action.FAILOVER, True),
        (Broke.GARBLED, "garbled", Action.FAILOVER, True),
    ],
)
def test_without_an_answer(how: Broke, code: str, action: Action, ambiguous: bool) -> None:
    failure = classify(Broken(how), NOW)
    assert failure is not None
    assert (failure.code, failure.action, failure.ambiguous, failure.breaker) == (
        code,
        action,
        ambiguous,
        Breaker.COUNT,
    )


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry_after": "7"}, "", 7.0),
        ({"retry_after": "Fri, 21 Nov 2025 04:40:30 GMT"}, "", 30.0),
        ({"retry_after_ms": "250"}, "", 0.25),
        ({"x_ms_retry_after_ms": "1500", "retry_after": "9"}, "", 1.5),
        ({}, "Rate limit reached. Please try again in 46.72s.", 46.72),
        ({}, "Please try again in 120ms.", 0.12),
        ({}, "Please try again in 1m30s.", 90.0),
        ({}, "Please try again in 2h0m0s.", 3600.0),
        ({}, "Please try again later.", None),
        ({"retry_after": "-5"}, "", 0.0),
        ({"retry_after": "nan"}, "", None),
        ({"retry_after": "inf"}, "", None),
        ({"retry_after": "10000000000"}, "", 3600.0),
        ({"retry_after": "Thu, 01 Jan 1970 00:00:00 GMT"}, "", 0.0),
        ({"retry_after": "soon"}, "", None),
        ({}, "", None),
    ],
)
def test_retry_after_is_read_and_never_trusted(headers: dict[str, str], message: str, seconds: float | None) -> None:
    failure = judged(429, error(message), **headers)
    assert failure is not None
    assert failure.retry_after == (None if seconds is None else pytest.approx(seconds))


def test_the_document_holds_the_whole_catalog() -> None:
    assert failure_table.written() == failure_table.table().strip("\n"), "docs/failures.md is old: make failure-table"
