"""A drill as data: ops/drills/scenarios.yaml. Each step has faults, jobs, and the evidence that is expected."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from producer.errors import UsageError
from producer.policy import read_yaml

Tier = Literal["hot", "warm", "link"]
FILE = Path(__file__).parent / "scenarios.yaml"


class Fault(StrEnum):
    """What a step breaks, at the simulated providers of one tier or on the way to them."""

    BLOCKED = "blocked"  # no connection: the domains are blocked on this machine, or egress is cut
    GATEWAY_500 = "gateway_500"
    KEY_REVOKED = "key_revoked"  # 401
    FIRST_TOKEN_LATE = "first_token_late"  # noqa: S105 - no secret: later than the route's streamTimeoutSeconds
    SLOW_ANSWERS = "slow_answers"  # 2 s each, so that some run while something happens
    REFUSES_REQUEST = "refuses_request"  # 400: the job cannot be answered anywhere
    CAFE_WIFI = "cafe_wifi"  # the link of the worker: latency, jitter, broken connections


class Evidence(StrEnum):
    """What is looked for after a step. Most need a limit, which stands behind the name in the file."""

    ALL_DONE = "all_done"  # every job of the step has its answer
    ANSWERED_BY = "answered_by"  # hot | warm
    WITHIN_ATTEMPTS = "within_attempts"  # failed attempts before the answer, of every job
    SLOWEST_SECONDS = "slowest_seconds"  # from handing in to the answer, of every job
    FAILOVER_SECONDS = "failover_seconds"  # from the fault to the first answer: the TTR
    P95_SECONDS = "p95_seconds"
    SUCCESS_PERCENT = "success_percent"
    COST_USD = "cost_usd"  # of a job on average
    PAID_ONCE = "paid_once"  # the providers have answered as many requests as jobs are done
    BREAKERS_OPEN = "breakers_open"  # every route of the faulted tiers is open or rests
    COLD_HOLDS = "cold_holds"  # every job waits in the queue; none is dead
    NEW_WORK_WAITS = "new_work_waits"  # jobs handed in after the pause stay queued
    RUNNING_ENDS = "running_ends"  # jobs that ran when the pause came are done
    PAUSED_SECONDS = "paused_seconds"  # until the flag is set
    TOLD_SECONDS = "told_seconds"  # until the message of the step's kind is in the channel
    HANDOVER = "handover"  # the message has job ids, the next action, who acts, and the client's text
    PARITY = "parity"  # answers on the bypass path have the same form
    BY_PRIMARY = "by_primary"  # all | none: answered by routes of the primary
    SAME_FORM = "same_form"  # a whole answer, and JSON where the baseline has JSON
    BREAKERS_CLOSED = "breakers_closed"  # after the rollback every route is used again


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Fields):
    """What the person is asked while the fault lasts. `answers`: the words that are right."""

    text: str
    answers: tuple[str, ...]


class Step(_Fields):
    """One step. `faults`: by tier (hot, warm, link). `jobs`: handed in once the faults are in place. `budget_percent`: reported
    by billing while jobs run. `kind`: of the incident whose message is looked for. `rollback`: cooldowns are cleared, and
    traffic goes on until the first route is used again. `resume`: a pause is ended. `baseline`: its figures stand beside those of
    later steps."""

    title: str
    faults: dict[Tier, Fault] = Field(default_factory=dict)
    jobs: Annotated[int, Field(ge=0, le=200)] = 0
    budget_percent: float | None = None
    kind: str = ""
    seconds: Annotated[float, Field(gt=0)] = 60.0  # until everything must have been seen
    bypass: bool = False
    rollback: bool = False
    resume: bool = False
    baseline: bool = False
    expect: dict[Evidence, str | float | None] = Field(default_factory=dict)
    ask: Question | None = None


class Scenario(_Fields):
    """A drill. `minutes`: its time limit. `roles` and `checklist`: for the people who hold it."""

    name: str
    title: str
    minutes: Annotated[float, Field(gt=0, le=60)]
    roles: tuple[str, ...] = ()
    checklist: tuple[str, ...] = ()
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    follow_ups: tuple[str, ...] = ()


class Scenarios(_Fields):
    """The file scenarios.yaml. `shared`: what several drills have in common, as YAML anchors."""

    shared: dict[str, Any]
    drills: dict[str, Scenario]


def load_scenario(name: str) -> Scenario:
    """The scenario of this name. Raises UsageError, ConfigurationError."""
    known = read_yaml(FILE, Scenarios).drills
    if name not in known:
        raise UsageError(f"there is no drill {name}; known drills: {', '.join(sorted(known))}")
    return known[name]
