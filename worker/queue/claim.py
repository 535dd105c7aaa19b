"""One claim: a job under this worker's lease."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One job under our lease. Times are Unix milliseconds of Redis TIME."""

    job_id: str
    execution_id: str
    queue: str
    claimed_ms: int
    data: bytes
    accepted_ms: int
    expires_ms: int
    executions: int  # that failed before this one
    crashes: int
    attempts: int
    run_ms: int
    trail: bytes

    @property
    def lease(self) -> str:
        return f"{self.job_id}:{self.execution_id}"

    @property
    def ordinal(self) -> int:
        """The ordinal of this execution, from 1."""
        return self.executions + self.crashes + 1
