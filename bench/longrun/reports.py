"""How long the reports take that people and Prometheus read: their work alone, and as commands."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import redis
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from bench.throughput import BIN
from ops.commands import budget
from ops.reports import status
from ops.web.health import health
from producer.client import DEFAULT_QUEUE

ROUNDS = 3  # the best one counts, because the machine may be busy
COMMANDS = (("status",), ("budget", "show"), ("history", "show"))


def work_seconds(url: str, client: redis.Redis) -> dict[str, float]:
    """Of each report in this process, after the imports: its questions to Redis and its text."""
    registry = CollectorRegistry()
    health(client, DEFAULT_QUEUE, registry, unsafe_redis=False)

    def show_status() -> None:
        status.render(status.gather(client, DEFAULT_QUEUE), Console(file=io.StringIO(), width=130))

    def show_budget() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            budget.group.main(["show"], obj={"REDIS_URL": url}, standalone_mode=False)

    reports: dict[str, Callable[[], object]] = {
        "status": show_status,
        "budget show": show_budget,
        "/metrics": lambda: generate_latest(registry),
    }
    return {name: min(_seconds(report) for _ in range(ROUNDS)) for name, report in reports.items()}


def command_seconds(url: str, folder: Path) -> dict[str, float]:
    """Of each command, with the start of Python and its imports."""
    runs = {" ".join(words): partial(_run, url, folder, words) for words in COMMANDS}
    return {name: min(_seconds(run) for _ in range(ROUNDS)) for name, run in runs.items()}


def _seconds(report: Callable[[], object]) -> float:
    began = time.monotonic()
    report()
    return time.monotonic() - began


def _run(url: str, folder: Path, words: tuple[str, ...]) -> None:
    environment = {**os.environ, "REDIS_URL": url}
    done = subprocess.run([BIN / "failover", *words], env=environment, cwd=folder, check=False, capture_output=True)
    if done.returncode:
        sys.exit(f"failover {' '.join(words)}: {done.stderr.decode()}")
