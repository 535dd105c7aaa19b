"""`failover batch run` from the outside: prompts and CSV, what a file is instead of a batch, pipes, memory."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ops.reports.batches import said
from producer import keyspace
from producer.connection import connect
from tests.support.polling import until
from tests.support.workshop import BIN, Workshop
from tests.test_cli import batch_file, calls, lines

RUN = ("failover", "batch", "run")


@pytest.fixture
def routed(workshop: Workshop) -> Workshop:
    workshop.routes(hot=[{"upstream": "hot"}])
    return workshop


def rows(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=delimiter))


def answers(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["custom_id"], each["response"]["body"]["choices"][0]["message"]["content"]) for each in found]


def test_each_line_of_a_list_of_prompts_is_a_job_with_an_id_from_its_number(routed: Workshop) -> None:
    (routed.folder / "in.txt").write_bytes("\ufeffHello\r\n\r\n  Grüße  \r\n".encode() + b"caf\xe9\nLast")
    routed.worker()
    ended = routed.run(*RUN, "--prompts", "in.txt", "-o", "out.jsonl")
    assert ended.returncode == 1 and "line 4: is not UTF-8" in ended.stderr
    out = lines(routed.folder / "out.jsonl")
    assert out[2]["custom_id"] == "line-4" and out[2]["error"]["code"] == "invalid_line"
    assert answers(out[:2] + out[3:]) == [
        ("line-1", "You said: Hello"),
        ("line-3", "You said: Grüße"),
        ("line-5", "You said: Last"),
    ]
    again = routed.run(*RUN, "in.txt", "--prompts", "-o", "out.csv")
    assert "3 of them from an earlier run" in again.stderr and calls(routed) == 3
    assert (routed.folder / "out.csv").read_bytes().splitlines()[
        3
    ] == b"caf\xe9,,line 4: is not UTF-8 \xe2\x80\x94 save the file as UTF-8"


def test_a_column_of_a_csv_has_the_prompts_and_the_output_has_the_rows_with_their_answers(routed: Workshop) -> None:
    text = '\ufeffid;prompt;answer\n7;"two\nlines; and more";old\n;;\n8;  ;\n9\n10;short;x;extra\n'
    (routed.folder / "in.csv").write_text(text, encoding="utf-8")
    routed.worker()
    ended = routed.run(*RUN, "in.csv", "--csv", "prompt", "-o", "out.csv")
    assert ended.returncode == 1 and "line 5: prompt: is empty" in ended.stderr, ended.stderr
    assert rows(routed.folder / "out.csv", ";") == [
        ["\ufeffid", "prompt", "answer", "answer_2", "error"],
        ["7", "two\nlines; and more", "old", "You said: two\nlines; and more", ""],
        ["8", "  ", "", "", "line 5: prompt: is empty"],
        ["9", "", "", "", "line 6: prompt: is empty"],
        ["10", "short", "x", "You said: short", "", "extra"],
    ]
    as_lines = routed.run(*RUN, "in.csv", "--csv", "prompt", "-o", "-")
    found = [json.loads(each) for each in as_lines.stdout.splitlines()]
    assert [each["custom_id"] for each in found] == ["line-2", "line-5", "line-6", "line-7"]
    assert calls(routed) == 2


def test_a_tsv_from_standard_input_is_written_as_one(routed: Workshop) -> None:
    routed.providers.behave("hot", status=400, error={"message": "no", "param": "messages"}, times=1)
    routed.worker("--concurrency", "1")
    ended = routed.run(*RUN, "-", "--csv", "q", "-o", "out.tsv", "--errors", "err.tsv", stdin="q\tn\na\t1\nb\t2\n")
    assert ended.returncode == 1
    assert rows(routed.folder / "out.tsv", "\t") == [["q", "n", "answer", "error"], ["b", "2", "You said: b", ""]]
    assert rows(routed.folder / "err.tsv", "\t")[1] == ["a", "1", "", "bad_request: no"]


GOOD = b'{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "hi"}]}}\n'


@pytest.mark.parametrize(
    ("content", "options", "what"),
    [
        (b"", (), "in: has no line to run"),
        (b"\n  \n", (), "in: has no line to run"),
        (gzip.compress(GOOD, mtime=0), (), "in: it is compressed with gzip"),
        (b"[" + GOOD * 3 + b"]", (), "in: it is a JSON array"),
        (b"", ("--prompts",), "in: has no line to run"),
        ("a".encode("utf-16"), ("--prompts",), "in: it is UTF-16"),
        (gzip.compress(b"a", mtime=0), ("--csv", "a"), "in: it is compressed with gzip"),
        (b"a,b\n1,2\n", ("--csv", "prompt"), "in: has no column 'prompt'; its first line names 'a', 'b'"),
        (b"a\tb\n1\t2\n", ("--csv", "c"), "its first line names 'a', 'b'"),
        (b"", ("--csv", "a"), "in: is empty"),
        (b"a,b\n", ("--csv", "a"), "in: has no line to run"),
        (b"a\n", ("--csv", "a", "--prompts"), "use one of them"),
    ],
)
def test_a_file_of_another_form_is_one_sentence_and_nothing_runs(
    routed: Workshop, content: bytes, options: tuple[str, ...], what: str
) -> None:
    (routed.folder / "in").write_bytes(content)
    ended = routed.run(*RUN, "in", "-o", "out", *options)
    told = [each for each in ended.stderr.splitlines() if "no worker listens" not in each]
    assert (ended.returncode, len(told)) == (2, 1) and what in told[0], ended.stderr
    assert not (routed.folder / "out").exists() and calls(routed) == 0


def test_what_stands_beside_the_bodies_is_told_once_by_name(routed: Workshop) -> None:
    path = batch_file(routed.folder, 400)
    path.write_text("".join(json.dumps({**json.loads(line), "max_tokens": 5}) + "\n" for line in path.open()))
    ended = routed.run(*RUN, "in.jsonl", "--detach")
    assert ended.returncode == 0
    assert "line 1 and 399 more: max_tokens: is ignored, because it stands beside `body` and not in it" in ended.stderr


def test_faults_of_many_kinds_are_a_few_lines_too(routed: Workshop) -> None:
    many = [{"custom_id": str(n), "body": {"messages": [{"role": "user"}] * n + [{}]}} for n in range(200)]
    more = [{"custom_id": f"n{n}", "body": {"messages": [{"role": "user", f"x{n}": "\0"}]}} for n in range(200)]
    ended = routed.run(*RUN, "-", "--detach", stdin="".join(json.dumps(line) + "\n" for line in many + more))
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) < 40
    assert "and 197 more like this (body.messages.role)" in ended.stderr and "and 191 of other kinds" in ended.stderr


def test_a_list_of_prompts_without_its_option_names_the_option(routed: Workshop) -> None:
    ended = routed.run(*RUN, "-", "--detach", stdin="Write a poem\nAnd a song\n")
    assert ended.returncode == 1 and "for a list of prompts add --prompts, for a CSV --csv COLUMN" in ended.stderr


@pytest.mark.parametrize(
    "redirected", ["-o /dev/stdout | cat >> all", "-o /dev/stdout >> all", "-o - >> all", "-o >(cat >> all) ; wait $!"]
)
def test_results_go_into_pipes_and_are_appended_to_files(routed: Workshop, redirected: str) -> None:
    batch_file(routed.folder, 3)
    (routed.folder / "all").write_text("before\n")
    routed.worker()
    ended = subprocess.run(
        ["bash", "-c", f"{BIN / 'failover'} batch run in.jsonl {redirected}"],
        cwd=routed.folder,
        env={**os.environ, **routed.environment, "REDIS_URL": routed.url},
        capture_output=True,
        timeout=60,
        check=False,
    )
    first, *found = (routed.folder / "all").read_text().splitlines()
    assert first == "before", ended.stderr
    assert [json.loads(each)["custom_id"] for each in found] == ["c0", "c1", "c2"]


def test_large_lines_and_answers_take_memory_by_their_bytes(routed: Workshop) -> None:
    """Eighty lines of 0.75 MB, whose answers repeat them: all at once they take 200 MB."""
    routed.worker()
    with (routed.folder / "in.jsonl").open("w") as file:
        for number in range(80):
            body = {"messages": [{"role": "user", "content": f"{number} " * 250_000}]}
            file.write(json.dumps({"custom_id": str(number), "body": body}) + "\n")
    measured = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024); sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", measured, str(BIN / "failover"), "batch", "run", "in.jsonl", "-o", "out.jsonl"],
        cwd=routed.folder,
        env={**os.environ, **routed.environment, "REDIS_URL": routed.url},
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 150  # MB


def test_status_shows_how_far_a_batch_is_and_forgets_a_killed_one(routed: Workshop) -> None:
    batch_file(routed.folder, 20)
    routed.providers.behave("hot", fault="hang", every=2)
    routed.worker()
    running = routed.start(*RUN, "in.jsonl", "-o", "out.jsonl")

    def shown() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(routed.run("failover", "status", "--json").stdout)["batches"]
        return found

    until(lambda: bool(shown()), "the batch is listed")
    (batch,) = shown()
    assert batch["total"] == 20 and batch["status"] == "running" and batch["batch"].startswith("in.jsonl of ")
    assert re.search(r"^batch in.jsonl of .*: \d+ of 20 ended, running$", routed.run("failover", "status").stdout, re.M)
    running.send_signal(signal.SIGTERM)
    running.wait()
    assert shown() == []
    with connect(routed.url) as client:
        client.hset(keyspace.BATCH_RUNS, "killed", json.dumps({"total": 9, "ended": 1, "at": time.time() - 61}))
        client.hset(keyspace.BATCH_RUNS, "odd", "text")
        assert shown() == []
        with said(client, "next", 3) as say:
            say(1)
            assert set(client.hgetall(keyspace.BATCH_RUNS)) == {b"next"}


def test_a_csv_of_excel_comes_back_as_excel_reads_it(routed: Workshop) -> None:
    (routed.folder / "in.csv").write_bytes("\ufeffstadt;frage\r\nKöln;short\r\n".encode())
    routed.worker()
    ended = routed.run(*RUN, "in.csv", "--csv", "frage", "-o", "out.csv")
    assert ended.returncode == 0 and "1 job, 0 malformed lines" in ended.stderr
    raw = (routed.folder / "out.csv").read_bytes()
    assert raw == "\ufeffstadt;frage;answer;error\r\nKöln;short;You said: short;\r\n".encode()
