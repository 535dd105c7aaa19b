"""What a client of /v1 reads when there is no answer: a job that ended without one, or that is late."""

from __future__ import annotations

from collections.abc import Mapping

from producer.errors import FailoverError
from producer.job import DeadReason, JobResult, JobStatus

# HTTP status, OpenAI's type, OpenAI's code. What a client did wrong is a 400; what it may try again elsewhere or later is a 5xx.
# A dead job is no reason to send it again: a person sees it, and may answer it (`x-should-retry: false`).
_DEAD: Mapping[DeadReason, tuple[int, str, str]] = {
    DeadReason.REJECTED: (400, "invalid_request_error", "rejected"),
    DeadReason.REFUSED: (400, "invalid_request_error", "content_filter"),
    DeadReason.OVER_BUDGET: (429, "insufficient_quota", "insufficient_quota"),
    DeadReason.MALFORMED: (400, "invalid_request_error", "malformed"),
    DeadReason.DISALLOWED: (400, "invalid_request_error", "disallowed"),
    DeadReason.EXPIRED: (504, "server_error", "expired"),
    DeadReason.EXHAUSTED: (503, "server_error", "exhausted"),
    DeadReason.CRASHED: (500, "server_error", "crashed"),
    DeadReason.FAILED_BY_RQ: (500, "server_error", "failed_by_rq"),
}


class NoAnswer(FailoverError):
    """A request of /v1 that gets no answer. `kind`: OpenAI's `error.type`. `more`: headers of the response."""

    def __init__(self, status: int, kind: str, code: str, message: str, more: Mapping[str, str]) -> None:
        self.status, self.kind, self.code, self.more = status, kind, code, more
        super().__init__(message)

    def headers(self) -> dict[str, str]:
        return dict(self.more)


def ended_without_answer(result: JobResult) -> NoAnswer:
    """The error of a job that is dead or cancelled."""
    more = {"x-failover-job-id": result.job_id, "x-should-retry": "false"}
    if result.status is JobStatus.CANCELLED:
        return NoAnswer(409, "invalid_request_error", "cancelled", f"job {result.job_id} was cancelled", more)
    reason = result.dead_reason or DeadReason.CRASHED
    status, kind, code = _DEAD[reason]
    if reason is DeadReason.REJECTED and result.attempted:
        code = result.attempted[-1].outcome
    detail = result.dead_detail or f"it is a dead letter: {reason}"
    seen = "" if status < 500 else " — people were told and may still answer it"
    return NoAnswer(status, kind, code, f"{detail} (job {result.job_id}{seen})", more)


def late(job_id: str) -> NoAnswer:
    """The error of a job whose time to answer is over. It goes on."""
    message = (
        f"no answer yet; the job goes on and its answer will be at /jobs/{job_id}. Ask there, or send "
        "`Prefer: respond-async` to get a 202 instead of this error"
    )
    return NoAnswer(
        503,
        "server_error",
        "late",
        message,
        {"x-failover-job-id": job_id, "x-should-retry": "false", "Retry-After": "60"},
    )


def restarting(job_id: str) -> NoAnswer:
    """The web process ends: the client's own retry finds the same job at the next one."""
    more = {"x-failover-job-id": job_id, "x-should-retry": "true", "Retry-After": "1"}
    return NoAnswer(
        503, "server_error", "restarting", f"this process restarts; job {job_id} goes on: send it again", more
    )
