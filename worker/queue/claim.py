"""A claim: one job that this worker holds under a lease."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Claim:
    """One job that this worker holds under a lease. Times are Unix milliseconds of Redis TIME.

    `data` is RQ's job data (compressed). `attempts`, `run_ms` and `trail` (JSON): of the executions before this one.
    `received`: when this worker got it, Unix seconds of its own clock.
    """

    job_id: str
    execution_id: str
    queue: str
    claimed_ms: int
    data: bytes
    accepted_ms: int
    expires_ms: int
    executions: int  # executions that failed before this one
    crashes: int  # executions whose worker vanished
    size: int  # bytes of `data` before they were compressed
    suspect: int  # of these, the latest in a row: the job may be what kills workers (suspects.py)
    attempts: int
    run_ms: int
    trail: bytes
    received: float = field(default_factory=time.time, compare=False)

    @property
    def lease(self) -> str:
        return f"{self.job_id}:{self.execution_id}"

    @property
    def ordinal(self) -> int:
        """The number of this execution among the job's executions, counted from 1."""
        return self.executions + self.crashes + 1
