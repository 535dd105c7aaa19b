"""Memory of the jobs in flight, bounded by what the platform gives this process, so that the kernel never kills a worker.

What a job needs is estimated: several times the bytes of its prompt when it starts (`hold`), and several times the bytes of
its answer as they arrive (`grow`). Who does not fit waits until others have ended. One job always goes on, however large it
is. Sizes in bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

COPIES = 6  # of a prompt or an answer that may exist at once: its JSON, its text, the request, the trail, the result
JOB_BYTES = 48 * 1024  # of any job in flight, however small
COLLECT_AFTER = (50_000, 20, 20)  # new objects, then rounds of the younger generation
LARGE_BYTES = 256 * 1024  # a job that needs more looks at the process first
SHARE = 0.75  # of the limit that may be planned for: the estimate can be wrong, and memory is fragmented
FULL = 0.85  # of the limit: with more in use, a large job waits until the others have ended
LEAST_BYTES = 16 * 1024 * 1024  # for jobs, however small the limit is
_PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Limit:
    """The most memory that this process may use, and who says so."""

    size: int
    source: str


def limit_of(megabytes: str | None) -> Limit:
    """The smallest limit that holds: `megabytes` (WORKER_MEMORY_MB) in place of all others, else cgroup, rlimit, machine."""
    if megabytes:
        return Limit(int(float(megabytes) * 1024 * 1024), "WORKER_MEMORY_MB")
    return min(_limits(), key=lambda limit: limit.size)


def _limits() -> Iterator[Limit]:
    yield Limit(os.sysconf("SC_PHYS_PAGES") * _PAGE, "this machine")
    for kind, name in ((resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d")):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield Limit(soft, name)
    for path in _cgroup_files(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")):
        with contextlib.suppress(OSError, ValueError):  # `max` is no number
            yield Limit(int(path.read_text()), "cgroup")


def _cgroup_files(groups: Path, root: Path) -> Iterator[Path]:
    """Files that may hold the limit of this process's group or of a group around it: of version 2, and of version 1."""
    lines = groups.read_text().splitlines() if groups.exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            folder, file = (root, "memory.max") if not controllers else (root / "memory", "memory.limit_in_bytes")
            group = folder / path.lstrip("/")
            yield from (each / file for each in (group, *group.parents) if each == folder or folder in each.parents)


def resident() -> int:
    """Memory that this process uses now; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    return 0


def return_freed_memory() -> None:
    """Make the C library return large freed blocks to the system at once, and use few heaps. Does nothing elsewhere."""
    m_mmap_threshold, m_arena_max = -3, -8
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(m_mmap_threshold, LARGE_BYTES)
        library.mallopt(m_arena_max, 2)


def collect_rarely() -> None:
    """Take what exists now out of the garbage collector's sight, and make its rounds rarer: it finds next to nothing, as
    jobs leave few cycles, and took a tenth to a fourth of a worker's CPU. Call it once, when the start is over."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


class Memory:
    """The memory of one worker's jobs in flight, by lease."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.size = max(LEAST_BYTES, int(limit.size * SHARE) - resident())  # for jobs
        self._held: dict[str, int] = {}
        self._used = 0
        self._over: str | None = None  # the one lease whose answer may exceed `size`, so that something always goes on
        self._growing: deque[tuple[str, int, asyncio.Future[None]]] = deque()
        self._starting: deque[tuple[str, int, asyncio.Future[None]]] = deque()

    @property
    def free(self) -> int:
        """Bytes of prompts that may start now."""
        return 0 if self._starting else max(0, self.size - self._used) // COPIES

    def slots(self, prompt: int) -> int:
        """How many jobs with prompts and answers of `prompt` bytes fit at once."""
        return max(1, self.size // (JOB_BYTES + 2 * COPIES * prompt))

    async def hold(self, lease: str, prompt: int) -> None:
        """A job starts: wait until there is memory for its prompt. Call `release` in any case."""
        need = JOB_BYTES + COPIES * prompt
        if not self._starting and self._may_start(need):
            self._take(lease, need)
            return
        await self._wait(self._starting, lease, need)

    def grow(self, lease: str, more: int) -> asyncio.Future[None] | None:
        """`more` bytes of the job's answer have arrived. Returns what to wait for before reading on, None for nothing."""
        need = COPIES * more
        if lease not in self._held:
            return None
        if self._may_grow(lease, need):
            self._take(lease, need)
            return None
        return self._wait(self._growing, lease, need)

    def release(self, lease: str) -> None:
        """The job has ended, or was given up."""
        self._used -= self._held.pop(lease, 0)
        if self._over == lease:
            self._over = None
        self._admit()

    def _wait(self, line: deque[tuple[str, int, asyncio.Future[None]]], lease: str, need: int) -> asyncio.Future[None]:
        turn = asyncio.get_running_loop().create_future()
        line.append((lease, need, turn))
        return turn

    def _admit(self) -> None:
        for line, may in ((self._growing, self._may_grow), (self._starting, lambda _, need: self._may_start(need))):
            while line and (line[0][2].done() or may(line[0][0], line[0][1])):
                lease, need, turn = line.popleft()
                if not turn.done():  # it is, if it was cancelled
                    self._take(lease, need)
                    turn.set_result(None)

    def _take(self, lease: str, need: int) -> None:
        self._held[lease] = self._held.get(lease, 0) + need
        self._used += need
        if self._used > self.size and self._over is None:
            self._over = lease

    def _may_start(self, need: int) -> bool:
        if not self._held:
            return True
        return self._used + need <= self.size and (need <= LARGE_BYTES or resident() < FULL * self.limit.size)

    def _may_grow(self, lease: str, need: int) -> bool:
        return self._used + need <= self.size or self._over in (None, lease)


@dataclass(frozen=True)
class Hold:
    """The memory of one job in flight."""

    memory: Memory
    lease: str

    def grow(self, more: int) -> asyncio.Future[None] | None:
        """As `Memory.grow`."""
        return self.memory.grow(self.lease, more)


current: ContextVar[Hold | None] = ContextVar("memory of the job that this task executes", default=None)
