"""A text from a provider, a client or a file costs time in proportion to its length at most, whatever stands in it."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from re import _constants, _parser  # type: ignore[attr-defined]  # how a pattern is built is no public part of re
from typing import Any

import pytest

import ops
import producer
import worker
from ops.importers.litellm.values import PLACEHOLDER
from producer.intake.routes import preferred_wait
from tests.test_house import PYTHON
from worker.errors import error_body
from worker.errors.classify import Reply, classify, redacted
from worker.errors.endings import worst_ending
from worker.errors.retry_after import until_reset
from worker.humanize import one_line, printable
from worker.routes.route import _VARIABLE

LONG = 1_000_000
BEGINNINGS = (
    *("a", "a ", "a_", "a.", "A", "A0", "1", "1.", "1h", "-", " ", "\n", "\r", "\t", "\\", "\\\\u0000", "\u0430", "\x1b"),
    *("'", "'a", "'a'", "'a.", "`a` and ", "a and ", "a[", "a[1", "a[1]", "a.1", "a: ", "(", "{", "[{", '{"a":', "}", "]"),
    *("<", "<a", "<title", "<title>", "<html><", "<a href='", "${", "${A", "${A:-", "${A:-a", "@", "a@", "+1 "),
    *("sk-", "sk-aaaaaaaa", "key ", "keykey", "retry ", "retry 1", "try again in ", "wait", ",wait=", "wait = "),
    *("violat", "violating ", "model ", "account ", "tool call id ", "exceeded your ", "unsupported parameter: ", "use 'a"),
    *("parameter 'a", "property 'a", "invalid field ", "additional properties are not allowed ('", "regain access on "),
    *("too large for model with 1", "content ", "prepaid ", "input ", "reduce the length ", "prefill", "ErrorException"),
)  # fmt: skip


def hostile(length: int, beginning: str) -> str:
    return (beginning * (length // len(beginning) + 1))[:length]


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Every pattern of the code, with where it stands: those that modules keep, and those that calls name."""
    for package in (producer, worker, ops):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            loaded = importlib.import_module(module.name)
            for name, value in vars(loaded).items():
                for pattern in _kept(value):
                    yield f"{module.name}.{name}", pattern
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="re"), attr=attr),
                    args=[ast.Constant(value=str() | bytes() as text), *_],
                ) if attr != "escape":
                    yield f"{path.name}:{node.lineno}", re.compile(text)


def _kept(value: Any) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _kept(getattr(each, "pattern", each) if not isinstance(each, re.Pattern) else each)


FOUND = list(patterns())
PATTERNS = {repr(pattern.pattern): (where, pattern) for where, pattern in reversed(FOUND)}


def gaps(parsed: Any) -> int:
    """How many parts without a bound one match can have."""
    found = 0
    for op, argument in parsed:
        if op in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            _, most, inner = argument
            is_open = most is _constants.MAXREPEAT
            found += int(is_open) + gaps(inner) * (1 if most == 1 else 2)
        elif op is _constants.BRANCH:
            found += max(gaps(branch) for branch in argument[1])
        elif op is _constants.SUBPATTERN:
            found += gaps(argument[-1])
    return found


def test_the_search_for_patterns_finds_them() -> None:
    wheres = " ".join(where for where, _ in FOUND)
    for name in (
        "wordings.FAMILIES",
        "blame.UNKNOWN_PARAMETER",
        "answer_cache._IGNORED",
        "routes.py:",
        "classify._KEY",
    ):
        assert name in wheres
    assert gaps(_parser.parse(r"a+b*|c{3,}")) == 2
    assert gaps(_parser.parse(r"(?:a+){2,9}")) == 2


@pytest.mark.parametrize("shown", PATTERNS)
def test_no_pattern_has_two_gaps_without_a_bound(shown: str) -> None:
    where, pattern = PATTERNS[shown]
    assert gaps(_parser.parse(pattern.pattern, pattern.flags)) <= 1, f"{where}: bound all but one, as in [^.]{{0,40}}"


def seconds(pattern: re.Pattern[Any], text: Any) -> float:
    """Of this thread's CPU."""
    began = time.thread_time()
    pattern.findall(text)
    return time.thread_time() - began


@pytest.mark.parametrize("shown", PATTERNS)
def test_a_search_takes_time_in_proportion_to_the_text(shown: str) -> None:
    """A text that is 16 times as long takes about 16 times as long, and 256 times if the search is quadratic."""
    where, pattern = PATTERNS[shown]
    for beginning in BEGINNINGS:
        short, long = (_like(pattern, hostile(length, beginning)) for length in (1_000, 16_000))
        enough = 100 * max(20e-6, min(seconds(pattern, short) for _ in range(3)))
        assert any(seconds(pattern, long) < enough for _ in range(5)), (where, beginning)


def _like(pattern: re.Pattern[Any], text: str) -> Any:
    return text.encode() if isinstance(pattern.pattern, bytes) else text


def _answered(text: str) -> None:
    """As the message of an error, its code, a page, JSON inside text, a header, and how an answer ended."""
    for status in (200, 400, 403, 429, 502):
        classify(
            Reply(status, {"retry-after": text, "x-ratelimit-reset-requests": text}, {"error": {"message": text}}), 0
        )
        classify(
            Reply(status, {}, {"error": {"code": text, "param": text, "retryDelay": text, "retry_after": text}}), 0
        )
        classify(Reply(status, {}, None, text), 0)
        classify(Reply(status, {}, None, f"<html>{text}"), 0)
        classify(Reply(status, {}, {"error": {"metadata": {"raw": json.dumps({"message": text})}}}), 0)
    worst_ending([{"finish_reason": text}])


ENTRANCES: tuple[Callable[[str], object], ...] = (
    _answered,
    lambda text: redacted(text, "sk-secret"),
    lambda text: until_reset(text, 0.0),
    lambda text: one_line(text, 4000),
    printable,
    preferred_wait,
    PLACEHOLDER.search,
    lambda text: _VARIABLE.sub("", text),
)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_text_of_a_megabyte_is_read(entrance: Callable[[str], object]) -> None:
    """It would take hours if a search without a bound were quadratic."""
    for beginning in BEGINNINGS[::6]:
        entrance(hostile(LONG, beginning))


def test_an_error_of_very_many_parts_is_read_up_to_a_bound() -> None:
    texts: Any = "quota exceeded"
    for _ in range(4):
        texts = [texts] * 20
    found = error_body.error_in({"error": texts})
    assert len(found.words) <= error_body.LONGEST_WORDS
    gathered: list[str] = []
    error_body._gather(texts, error_body.ErrorBody(), gathered, 0)
    assert len(gathered) == error_body.MOST_NODES


def test_a_wait_of_very_many_digits_is_no_error() -> None:
    for text in (f"retry after {'9' * 3000}h", f"try again in {'9' * 3000}s", f"wait {'9' * 3000}m1s"):
        assert classify(Reply(429, {"retry-after": "9" * 5000}, {"error": {"message": text}}), 0) is not None
