"""The rules of the house that no linter knows: nobody reads a waiting text, folders and files stay small."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.waiting import WaitReason
from worker.queue.waiting import _TEXTS

ROOT = Path(__file__).parent.parent
CODE = [path for name in ("producer", "worker", "ops") for path in sorted((ROOT / name).rglob("*"))]
PYTHON = [path for path in CODE if path.suffix == ".py"]
LUA = [path for path in CODE if path.suffix == ".lua"]
PRELUDES = (  # of one room, besides those in shared/
    "worker/money/lua/ledger_rows.lua",
    "worker/money/lua/ledger_sums.lua",
    "worker/queue/lua/fence.lua",
    "worker/queue/lua/settle.lua",
)

MODULES_OF_A_FOLDER = 16  # beside its __init__.py
LINES_OF_A_FILE = 300
LONGER = {
    "producer/keyspace.py": "every key and field has its name here, and nowhere else",
    "worker/money/ledger.py": "one side of lua/ledger.lua: rows, reservations and refusals change together",
    "worker/routing/router.py": "one pass over the candidates: its steps are read in their order",
    "worker/worker.py": "where everything that a worker has is put together",
}

READS = {
    "startswith",
    "endswith",
    "find",
    "index",
    "removeprefix",
    "partition",
    "split",
    "match",
    "search",
    "fullmatch",
}
LEADS = tuple(lead for text in _TEXTS.values() if (lead := text.partition("{")[0].strip()))
WAITING_FOR = "waiting_for"


def names_text(node: ast.AST) -> bool:
    """Whether the expression is a job's waiting text."""
    inner = [each for each in ast.walk(node) if isinstance(each, ast.Attribute | ast.Name | ast.Constant)]
    return any(WAITING_FOR in (getattr(each, field, None) for field in ("attr", "id", "value")) for each in inner)


def begins_as_text(node: ast.AST) -> bool:
    """Whether it is a literal with the beginning of a waiting text."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip().startswith(LEADS)


def compared_in_python(source: str) -> Iterator[int]:
    """Lines that ask what a waiting text says. Whether there is one may be asked."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [left, *others]
                if any(map(begins_as_text, sides)) or (
                    any(map(names_text, sides)) and not all(isinstance(each, ast.Is | ast.IsNot) for each in ops)
                ):
                    yield node.lineno
            case ast.Call(func=ast.Attribute(value=value, attr=name), args=arguments) if name in READS:
                if names_text(value) or any(names_text(each) or begins_as_text(each) for each in arguments):
                    yield node.lineno
            case ast.Match(subject=subject) if names_text(subject):
                yield node.lineno


def compared_in_lua(source: str) -> Iterator[int]:
    """Lines that do anything with a waiting text but write and remove it, or that search for one's beginning."""
    code = re.sub(r"--[^\n]*", "", source)
    for found in re.finditer(WAITING_FOR, code):
        calls = re.findall(r"redis\.p?call\('(\w+)'", code[: found.start()])
        if not calls or calls[-1] not in ("HSET", "HDEL"):
            yield code[: found.start()].count("\n") + 1
    for found in re.finditer(r"'([^'\n]*)'", code):
        if found[1].strip().startswith(LEADS):
            yield code[: found.start()].count("\n") + 1


def reasons_woken(source: str) -> Iterator[str]:
    """The reasons that a script's calls of wake_parked name; what is no list of literals comes back as it stands."""
    code = re.sub(r"--[^\n]*", "", source)
    for found in re.finditer(r"(?<!function )\bwake_parked\(([^)]*)\)", code):
        listed = re.fullmatch(r"[^,{}]+,\s*\{((?:\s*'\w+'\s*,?)+)\}.*", found[1], re.DOTALL)
        yield from re.findall(r"'(\w+)'", listed[1]) if listed else [found[0]]


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_code_compares_the_text_of_a_waiting_reason() -> None:
    python = {where(path): list(compared_in_python(path.read_text())) for path in PYTHON}
    lua = {where(path): list(compared_in_lua(path.read_text())) for path in LUA}
    assert {path: lines for path, lines in {**python, **lua}.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "if result.waiting_for == 'x': pass",
        "found = 'limit' in (result.waiting_for or '')",
        "result.waiting_for.startswith('a')",
        "fields['waiting_for'].find('a')",
        "re.match('a', waiting_for)",
        "why.startswith('budget: ')",
        "'an open route' == why",
        "match result.waiting_for:\n    case 'x': pass",
    ],
)
def test_a_comparison_in_python_is_found(source: str) -> None:
    assert list(compared_in_python(source)) == [1]


@pytest.mark.parametrize(
    "source",
    [
        "print(result.waiting_for or 'nothing')",
        "if result.waiting_for: pass",
        "known = result.waiting_for is not None",
        "if result.waiting_reason == WaitReason.BUDGET: pass",
        "fields = {'waiting_for': waiting_for}",
    ],
)
def test_telling_a_text_is_no_comparison(source: str) -> None:
    assert list(compared_in_python(source)) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("redis.call('HSET', job, 'waiting_for', ARGV[1])", []),
        ("redis.call('HDEL', job, 'waiting',\n  'waiting_for')", []),
        ("-- waiting_for is for people", []),
        ("\nlocal why = redis.call('HGET', job, 'waiting_for')", [2]),
        ("local waits = redis.pcall('HMGET', job, 'waiting_reason', 'waiting_for')", [1]),
        ("if string.find(why, 'budget: ', 1, true) then end", [1]),
    ],
)
def test_a_comparison_in_lua_is_found(source: str, lines: list[int]) -> None:
    assert list(compared_in_lua(source)) == lines


def test_only_reasons_of_the_closed_set_are_woken() -> None:
    woken = {where(path): list(reasons_woken(path.read_text())) for path in LUA}
    assert {reason for reasons in woken.values() for reason in reasons} - set(WaitReason) == set()
    assert sum(map(bool, woken.values())) >= 3  # the calls are found


@pytest.mark.parametrize(
    ("source", "reasons"),
    [
        ("wake_parked(KEYS[1], {'budget'})", ["budget"]),
        ("wake_parked(KEYS[1], {'route', 'typo'}, 'provider:' .. name)", ["route", "typo"]),
        ("wake_parked(KEYS[1], ARGV)", ["wake_parked(KEYS[1], ARGV)"]),  # no member of the set
        ("local function wake_parked(queues, reasons, subject)", []),
    ],
)
def test_what_is_woken_is_read(source: str, reasons: list[str]) -> None:
    assert list(reasons_woken(source)) == reasons


def test_only_a_hint_publishes_in_lua() -> None:
    """PUBLISH fails for a user without channels; hint.lua ignores that."""
    assert [where(path) for path in LUA if "'PUBLISH'" in path.read_text()] == ["producer/lua/shared/hint.lua"]


def test_a_full_redis_refuses_no_script_but_those_of_intake() -> None:
    flagged = {where(path): "-- flags:" in path.read_text() for path in LUA if "-- KEYS" in path.read_text()}
    whole = {name for name in flagged if "/shared/" not in name and name not in PRELUDES}
    assert {name for name in whole if not flagged[name]} == {
        "producer/lua/enqueue.lua",
        "producer/lua/rate.lua",
        "ops/web/batches/lua/part.lua",
    }


def test_no_folder_has_more_modules_than_one_can_look_over() -> None:
    folders = {path.parent for path in PYTHON}
    sizes = {where(folder): len([path for path in PYTHON if path.parent == folder]) for folder in folders}
    inits = {where(path.parent) for path in PYTHON if path.name == "__init__.py"}
    crowded = {name: size for name, size in sizes.items() if size - (name in inits) > MODULES_OF_A_FOLDER}
    assert crowded == {}


def test_no_file_is_long_without_a_reason() -> None:
    sizes = {where(path): len(path.read_text().splitlines()) for path in [*PYTHON, *LUA]}
    long = {name: size for name, size in sizes.items() if size > LINES_OF_A_FILE}
    assert {name: size for name, size in long.items() if name not in LONGER} == {}
    assert [name for name in LONGER if name not in long] == []  # a reason that is not needed any more
