"""Control characters in texts of clients and providers never reach a terminal, whatever command prints them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pty
import re
import subprocess
import sys

import pytest
import redis

from ops import cli
from producer import Producer, keyspace
from producer.job import JobStatus, LLMJob
from tests.support.workshop import BIN, Workshop
from worker.control import pause
from worker.humanize import printable
from worker.logs import _Text

EVIL = "\x1b]0;X\x07\x1b[31m\x1b[8m\x9b2J\x00\x08\x7f\r\u202egpj\u2066\u0085"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a\tb\nc\r\nd", "a\tb\nc\r\nd"),
        ("\x1b]0;X\x07", "\\u001b]0;X\\u0007"),
        ("\x9b\x7f\x00", "\\u009b\\u007f\\u0000"),
        ("50%\r100%", "50%\\u000d100%"),
        ("\u202eevil\u2069", "\\u202eevil\\u2069"),
        ("\udcff", "\\udcff"),
        ("Grüße, 日本語 😀 \u200f\u05e2", "Grüße, 日本語 😀 \u200f\u05e2"),
    ],
)
def test_control_characters_are_printed_as_their_escapes(text: str, printed: str) -> None:
    assert printable(text) == printed
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text


@pytest.fixture
def job_id(workshop: Workshop, producer: Producer, client: redis.Redis) -> str:
    """A dead letter with control characters in everything that people can write."""
    workshop.policy(degrade=["human_review"])
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.providers.behave("hot", status=400, error={"message": f"no {EVIL}", "code": "bad", "param": "messages"})
    evil = EVIL.replace("\0", "")  # no job may hold a NUL
    body = {"messages": [{"role": evil, "content": f"prompt {evil}"}]}
    job = LLMJob.parse({"body": body, "user_id": evil, "feature": evil, "metadata": {evil: evil}})
    job_id = producer.enqueue(job)
    workshop.worker("--burst").wait(60)
    assert producer.fetch(job_id).status is JobStatus.DEAD
    client.hset(keyspace.job(job_id), keyspace.JobField.TENANT, EVIL)
    pause.pause(client, who=EVIL, why=EVIL)
    return job_id


def test_no_command_prints_a_control_character(
    job_id: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"REDIS_URL": workshop.url, **workshop.environment}.items():
        monkeypatch.setenv(name, value)
    commands = (
        ["job", "show", job_id], ["job", "show", job_id, "--json"], ["job", "why", job_id], ["job", "show", EVIL],
        ["dlq", "list"], ["dlq", "show", job_id], ["dlq", "stats"], ["review", "list"], ["review", "show", job_id],
        ["status"], ["status", "--json"], ["incidents"], ["budget", "show"], ["resume", "--dry-run"],
        ["submit", "--file", EVIL[:9]], ["budget", "set", EVIL, "--hard", "1"],
    )  # fmt: skip
    printed = ""
    for words in commands:
        out = io.StringIO()
        monkeypatch.setattr(sys, "argv", ["failover", *words])
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", out)
        with contextlib.suppress(SystemExit):
            cli.main()
        assert not CONTROL.search(out.getvalue()), (words, out.getvalue())
        if words[-1] == "--json":
            json.loads(out.getvalue())
        printed += out.getvalue()
    assert printed.count("\\u001b]0;X") > 10


def test_a_terminal_gets_our_styles_and_no_others(job_id: str, workshop: Workshop) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, **workshop.environment, "REDIS_URL": workshop.url, "TERM": "xterm-256color"}
    subprocess.run([str(BIN / "failover"), "job", "show", job_id], stdout=theirs, env=environment, check=True)
    os.close(theirs)
    printed = all_of(ours)
    assert b"\x1b[2m" in printed  # dim
    assert not re.search(rb"\x1b\]|\x1b\[31m|\x1b\[8m|\x07|\x9b2J|\x08|\xe2\x80\xae", printed)


def all_of(terminal: int) -> bytes:
    """What was written to a terminal whose other end is closed."""
    printed = b""
    with contextlib.suppress(OSError):  # its end
        while piece := os.read(terminal, 65536):
            printed += piece
    return printed


def test_a_progress_bar_moves_the_cursor_and_prints_no_escapes_as_text() -> None:
    ours, theirs = pty.openpty()
    script = (
        "from ops.printing import guard_output; from ops.local.session import note, progress\n"
        "guard_output()\n"
        "with progress(2) as report: report(1); note('a note')"
    )
    environment = {**os.environ, "TERM": "xterm-256color"}
    subprocess.run([sys.executable, "-c", script], stderr=theirs, env=environment, check=True)
    os.close(theirs)
    printed = all_of(ours)
    assert b"\x1b[" in printed and b"a note" in printed
    assert b"\\u00" not in printed


def test_a_log_on_a_terminal_has_none_either() -> None:
    record = logging.makeLogRecord({"msg": EVIL, "tenant": EVIL})
    assert not CONTROL.search(_Text().format(record))
