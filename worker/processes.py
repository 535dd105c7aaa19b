"""`failover-worker --processes N`: one parent that starts, watches, restarts and drains N workers, a process each.

The parent forks before any event loop, thread or connection exists, so a child has nothing of another one, and shares the memory
of what was imported. It has no part in the jobs. Each child is a whole worker with its own name in `failover status`; which of
them sends messages and leads the maintenance is settled by leases in Redis, as between machines.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger("failover.worker")

RESTART_SECONDS = (0.5, 30.0)  # the first wait, the longest one: doubled with each early end
EARLY_SECONDS = 60.0  # an end within it is an early one
DRAINS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


@dataclass
class Place:
    """One of the N. `pid`: 0 while no process has it. `early`: ends in a row that came soon. `starts_at`: monotonic seconds."""

    pid: int = 0
    began: float = 0.0
    early: int = 0
    starts_at: float = 0.0


class Supervisor:
    """`work(parent)` is one worker, from its start to its drained end, and returns the exit code; `parent` is a descriptor that
    becomes readable when the parent is gone. The signals that drain are blocked until `work` unblocks them. `once`: a worker
    that ended by itself, without an error, is not replaced."""

    def __init__(self, count: int, work: Callable[[int], int], *, once: bool) -> None:
        self._work, self._once = work, once
        self._places = [Place() for _ in range(count)]
        self._draining = False
        self._code = 0
        self._alive, self._held = os.pipe()  # the parent holds one end, and never writes
        self._wake, self._woken = os.pipe()

    def run(self) -> int:
        """Until every worker has ended by itself (`--burst`) or was drained. Returns the exit code."""
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (*DRAINS, signal.SIGINT):
            signal.signal(number, self._drain)
        while True:
            self._reap()
            self._start_due()
            waiting = [place.starts_at for place in self._places if not place.pid and place.starts_at]
            if not waiting and not any(place.pid for place in self._places):
                return self._code
            seconds = max(0.0, min(waiting) - time.monotonic()) if waiting else None
            select.select([self._wake], [], [], seconds)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 1024)

    def _drain(self, number: int, _frame: object) -> None:
        """Ctrl-C reaches the parent alone, as each child leads a process group: it is passed on once each time."""
        self._draining = True
        for place in self._places:
            place.starts_at = 0.0
            if place.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(place.pid, number)

    def _start_due(self) -> None:
        for place in self._places:
            first = not place.pid and not place.began
            due = place.starts_at and place.starts_at <= time.monotonic()
            if not self._draining and (first or due):
                self._start(place)

    def _start(self, place: Place) -> None:
        numbers = {*DRAINS, signal.SIGINT}
        signal.pthread_sigmask(
            signal.SIG_BLOCK, numbers
        )  # a drain between fork and the child's own handlers waits for these
        pid = os.fork()
        if pid == 0:
            self._be_child(numbers)
        place.pid, place.began, place.starts_at = pid, time.monotonic(), 0.0
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def _be_child(self, numbers: set[signal.Signals]) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (*numbers, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for end in (self._held, self._wake, self._woken):
                os.close(end)
            code = self._work(self._alive)
        except BaseException:
            log.critical("a worker process failed", exc_info=True)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            place = next((place for place in self._places if place.pid == pid), None)
            if place is not None:
                self._ended(place, os.waitstatus_to_exitcode(status))

    def _ended(self, place: Place, code: int) -> None:
        lived, place.pid = time.monotonic() - place.began, 0
        if self._draining or (self._once and code == 0):
            self._code = self._code or (code if code >= 0 else 1)
            return
        place.early = place.early + 1 if lived < EARLY_SECONDS else 0
        first, longest = RESTART_SECONDS
        wait = min(longest, first * 2 ** max(0, place.early - 1))
        place.starts_at = time.monotonic() + wait
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        log.error("a worker process ended, another one takes its place", extra={"how": how, "in_seconds": wait})
