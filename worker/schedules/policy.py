"""policies/schedules.yaml: what runs at which times. Its fields are explained at the head of the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import takewhile
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from producer.environment import Environment, find_configuration
from producer.job import LLMJob
from producer.policy import read_yaml

FILE = "schedules.yaml"
MOST_SCHEDULES = 1000
COLUMNS = 5  # minute, hour, day of month, month, day of week
MADE = ("idempotency_key", "not_before")  # fields of a job that its schedule makes

Name = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,100}$")]


class Schedule(BaseModel):
    """One cron line, and the job or the command that it starts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cron: str
    time_zone: str = "UTC"
    missed: Literal["run", "skip"] = "run"
    enabled: bool = True
    job: LLMJob | None = None
    run: Literal["budget poll"] | None = None

    @field_validator("cron")
    @classmethod
    def _is_a_cron_line(cls, line: str) -> str:
        if len(line.split()) != COLUMNS:
            raise ValueError(
                "should be five columns: minute, hour, day of month, month, day of week, such as 0 7 * * mon-fri"
            )
        try:
            CronSim(line, datetime(2000, 1, 1))  # noqa: DTZ001 - only to read the line
        except CronSimError as error:
            raise ValueError(f"is no cron line: {str(error).lower()}") from None
        return line

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError):
            raise ValueError("is no time zone; use a name such as Europe/Berlin") from None
        return name

    @field_validator("job")
    @classmethod
    def _can_be_submitted(cls, job: LLMJob | None, info: ValidationInfo) -> LLMJob | None:
        if job is not None and (made := [name for name in MADE if getattr(job, name) is not None]):
            raise ValueError(f"{made[0]} is made from the schedule's name and its time: remove it")
        job_types: list[str] = info.context or []
        if job is not None and job.job_type not in job_types:
            raise ValueError(f"job_type {job.job_type!r} is not in jobs.yaml; it has {', '.join(job_types)}")
        return job

    @model_validator(mode="after")
    def _starts_one_thing(self) -> Schedule:
        if (self.job is None) == (self.run is None):
            raise ValueError("should have either a `job` or `run: budget poll`")
        return self

    @property
    def definition(self) -> str:
        """The text that says at which times it runs."""
        return f"{self.cron} {self.time_zone}"

    def times(self, after: float) -> Iterator[float]:
        """Its times after this one, in Unix seconds. When clocks are put back, a fixed time comes once; when they are put
        forward, it comes at the next time that exists."""
        return (at.timestamp() for at in CronSim(self.cron, datetime.fromtimestamp(after, ZoneInfo(self.time_zone))))

    def due(self, after: float, now: float, at_most: int) -> list[float]:
        """The times after `after` up to `now`, the first `at_most` of them."""
        found = takewhile(lambda at: at <= now, self.times(after))
        return [at for at, _ in zip(found, range(at_most), strict=False)]


class Schedules(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    schedules: Annotated[dict[Name, Schedule], Field(max_length=MOST_SCHEDULES)] = Field(default_factory=dict)

    @field_validator("schedules", mode="before")
    @classmethod
    def _may_be_empty(cls, given: Any) -> Any:
        return {} if given is None else given


def load_schedules(environment: Environment, job_types: Collection[str]) -> Schedules:
    """Read POLICIES_DIR/schedules.yaml; without it nothing is scheduled. Raises ConfigurationError with every problem."""
    path = find_configuration("policies", "POLICIES_DIR", environment) / FILE
    return read_yaml(path, Schedules, context=sorted(job_types)) if path.exists() else Schedules()
