"""A child process of a command: one of our own commands, which ends when its parent is gone, however that ended.

The parent holds the other end of the child's standard input and never writes; the end of that pipe makes the child drain.
The child leads a process group, so Ctrl-C reaches the parent alone, which passes it on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ops.local.session import note
from producer.errors import FailoverError

EARLY_SECONDS = 20.0  # a failure within it is no accident: the process cannot run here


class CannotRun(FailoverError):
    """A child process failed soon after its start. The exit code is its own."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class ChildProcess:
    """`failover COMMAND` as a child. Its output goes to `log`, which begins anew."""

    def __init__(self, name: str, command: Sequence[str], log: Path, ready: str) -> None:
        """`ready`: the event of its log that says that it works."""
        self.name, self.log = name, log
        self._command = [sys.executable, "-P", "-m", "failover_worker", *command]
        self._ready = json.dumps(ready).encode()
        log.parent.mkdir(exist_ok=True)
        log.write_bytes(b"")
        self._start()

    def _start(self) -> None:
        self._began = time.monotonic()
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=sink, stderr=sink, process_group=0
            )

    @property
    def ready(self) -> bool:
        return self._ready in self.log.read_bytes()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def keep(self) -> None:
        """Start it again if it has ended. Raises CannotRun if it failed soon after its start."""
        code = self._process.poll()
        if code is None:
            return
        if code > 0 and time.monotonic() - self._began < EARLY_SECONDS:
            said = self.log.read_text(errors="replace").strip().rpartition("\n")[2].removeprefix("failover: ")
            raise CannotRun(f"{self.name} cannot run: {said} ({self.log})", code)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        note(f"{self.name} {how}, and is started again")
        self._start()

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def end_with_parent() -> None:
    """In the child: SIGTERM, which drains, comes also when the parent is gone."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
