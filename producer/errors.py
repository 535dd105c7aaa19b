"""The errors that people see. Each says what is wrong, where, and how to fix it; none contains a secret.

FailoverError                    exit 1   HTTP 500
├── ConfigurationError           exit 2   one Problem per wrong field, all of them at once
├── UsageError                   exit 2   a command was used wrongly
├── ServiceUnavailable           exit 3   503   Redis is not reachable, or not safe to keep jobs in
│   └── RedisFull                exit 3   503   it has no memory for new jobs; those that it has accepted go on
├── InvalidJob                   exit 2   422   the job itself is wrong; names the field
├── IdempotencyConflict          exit 1   409   same key, another body
├── UnknownJob                   exit 1   404   no such job id
├── JobCancelled                 exit 1   404   the job was cancelled, so it is no HTTP resource any more
├── JobEnded                     exit 1   409   a job that has ended cannot be cancelled
└── BadRequest                            400   over HTTP only
    ├── InvalidBody                       422   a field of another body than a job's is wrong; names it
    ├── Unauthorized                      401   no token, or a wrong one
    ├── Forbidden                         403   the token may not do this
    ├── BodyTooLarge                      413
    └── TooManyJobs                       429   a tenant is over its rate; says when to come back
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class FailoverError(Exception):
    """Base of every error that is shown to people as a sentence."""

    exit_code = 1
    status = 500  # HTTP
    code = "internal_error"  # for programs: OpenAI's `error.code`

    def headers(self) -> dict[str, str]:
        """Additional headers of the HTTP response."""
        return {}


@dataclass(frozen=True)
class Problem:
    """One problem: `where` (file or variable), `field` (dotted path, may be ""), `what` is wrong and how to `fix` it."""

    where: str
    field: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: {self.field}" if self.field else self.where
        return f"{place}: {self.what}" + (f" — {self.fix}" if self.fix else "")


class ConfigurationError(FailoverError):
    """The configuration cannot be used. The text has one line per problem."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


class UsageError(FailoverError):
    """A command was called, or a page's form filled, in a way that cannot work."""

    exit_code = 2
    status, code = 400, "bad_request"


class ServiceUnavailable(FailoverError):
    """A service that we need does not answer, or is not safe to use."""

    exit_code = 3
    status, code = 503, "unavailable"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class RedisFull(ServiceUnavailable):
    """Redis has no memory for another job. Nothing was accepted of what was refused."""

    code = "redis_full"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Redis is full and accepts no new job: {why} — accepted jobs go on; try again later, or give Redis more memory "
            "(runbook.md: redis_full)"
        )

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "60"}


class InvalidJob(FailoverError):
    """A job that cannot be accepted. `field`: dotted path of the wrong field, "" for the job as a whole."""

    exit_code = 2
    status, code = 422, "invalid_job"

    def __init__(self, field: str, what: str) -> None:
        self.field, self.what = field, what
        super().__init__(f"{field}: {what}" if field else what)


class IdempotencyConflict(FailoverError):
    """The idempotency key belongs to a job with another body."""

    status, code = 409, "idempotency_conflict"

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"this idempotency key already belongs to job {job_id}, with another body — "
            "use a new key for new work, or the same body to get the same job"
        )


class UnknownJob(FailoverError):
    """No job has this id: it never existed, or its result is past its retention."""

    status, code = 404, "unknown_job"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job has the id {job_id!r}: mistyped, or past its retention (policies/jobs.yaml)")


class JobLost(FailoverError):
    """The job was accepted, and another tool deleted or overwrote its data in Redis."""

    status, code = 410, "job_lost"

    def __init__(self, job_id: str, why: str = "") -> None:
        because = f" ({why})" if why else ""
        super().__init__(
            f"job {job_id!r} is lost: another tool deleted or overwrote its data in Redis{because} — hand it in again"
        )


class WrongType(ServiceUnavailable):
    """A key in Redis has another type than ours: another tool wrote it."""


class JobCancelled(FailoverError):
    """A cancelled job is requested over HTTP, where DELETE removes a resource."""

    status, code = 404, "job_cancelled"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} was cancelled")


class JobEnded(FailoverError):
    """A job that is done or dead cannot be cancelled."""

    status, code = 409, "job_ended"

    def __init__(self, job_id: str, how: str) -> None:
        fix = f"; `failover dlq discard {job_id}` gives it up" if how == "dead" else ""
        super().__init__(f"job {job_id} is {how} already{fix}")


class BadRequest(FailoverError):
    """An HTTP request that cannot be read."""

    status, code = 400, "bad_request"


class InvalidBody(BadRequest):
    """A JSON body with a wrong field. `field`: its dotted path."""

    status, code = 422, "invalid_body"

    def __init__(self, field: str, what: str) -> None:
        self.field = field
        super().__init__(f"{field}: {what}" if field else what)


class Unauthorized(BadRequest):
    """No credential, or a wrong one."""

    status, code = 401, "unauthorized"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(BadRequest):
    """The caller is known, and may not do this."""

    status, code = 403, "forbidden"


class BodyTooLarge(BadRequest):
    """The body has more bytes than allowed."""

    status, code = 413, "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit:,} bytes — send less, or several jobs")


class TooManyJobs(BadRequest):
    """A tenant submits faster than its policy allows. `seconds`: until its next job is accepted."""

    status, code = 429, "too_many_jobs"

    def __init__(self, tenant_id: str, seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__(f"tenant {tenant_id} is over its rate (policies/tenants.yaml) — try again in {self.seconds} s")

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.seconds)}


def first_problem(error: ValidationError) -> tuple[str, str]:
    """(field, what) of the first problem in a pydantic error, in our wording. It never contains the input's value."""
    details = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return ".".join(str(part) for part in details["loc"]), what_is_wrong(details["type"], details["msg"])


def what_is_wrong(kind: str, message: str) -> str:
    """pydantic's message, reworded for the person who wrote the file."""
    known = {
        "missing": "is missing",
        "extra_forbidden": "is not a field here: mistyped?",
        "tuple_type": "should be a list, as in [a, b]",
        "dict_type": "should be an object, with names and values",
    }
    return known.get(kind, message.removeprefix("Value error, "))


def problems_of(where: str, error: ValidationError) -> list[Problem]:
    """Every problem in a pydantic error, as Problems of the file `where`."""
    return [
        Problem(where, ".".join(str(part) for part in details["loc"]), what_is_wrong(details["type"], details["msg"]))
        for details in error.errors(include_url=False, include_input=False, include_context=False)
    ]
