"""How long the reports take that people and Prometheus read: their work alone, and as commands."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, process_time

import redis
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from bench.longrun.slow_log import SlowLog
from bench.throughput import BIN
from ops.commands import budget
from ops.reports import status
from ops.web.health import health
from producer.client import DEFAULT_QUEUE

ROUNDS = 3  # the best one counts, because the machine may be busy
COMMANDS = {  # the command -> what it imports before it does anything
    ("status",): "from ops.local import session; from ops.reports import status",
    ("budget", "show"): "from ops.commands import budget",
    ("history", "show"): "from ops.commands import history",
}


@dataclass(frozen=True)
class Took:
    """Seconds: until the end, and what was computed for it. On a busy machine the first one is mostly waiting for a core."""

    passed: float
    computed: float

    def __str__(self) -> str:
        return f"{1000 * self.computed:.0f} ms computed, {1000 * self.passed:.0f} ms passed"


def work(url: str, client: redis.Redis, slow_log: SlowLog) -> dict[str, Took]:
    """Of each report in this process, after the imports: its questions to Redis, Redis's own work, and its text."""
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
    return {name: _best(report, lambda: process_time() + slow_log.computed_seconds) for name, report in reports.items()}


def commands(url: str, folder: Path) -> dict[str, Took]:
    """Of each command, without the start of Python and its imports."""
    found = {}
    for words, imports in COMMANDS.items():
        start = _best(partial(_run, url, folder, [sys.executable, "-c", f"import ops.cli; {imports}"]), _of_children)
        whole = _best(partial(_run, url, folder, [str(BIN / "failover"), *words]), _of_children)
        found[" ".join(words)] = Took(whole.passed - start.passed, whole.computed - start.computed)
    return found


def _best(report: Callable[[], object], computed: Callable[[], float]) -> Took:
    took = []
    for _ in range(ROUNDS):
        began, before = monotonic(), computed()
        report()
        took.append(Took(monotonic() - began, computed() - before))
    return min(took, key=lambda each: each.computed)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(url: str, folder: Path, command: list[str]) -> None:
    environment = {**os.environ, "REDIS_URL": url}
    done = subprocess.run(command, env=environment, cwd=folder, check=False, capture_output=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.decode()}")
