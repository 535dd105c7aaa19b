"""policies/slo.yaml: the targets, when people are alerted, what is left out. Its fields are explained at the head of the file."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from producer.environment import Environment, find_configuration
from producer.policy import read_yaml
from worker.history.document import ALL

FILE = "slo.yaml"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(gt=0, le=100)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(min_length=1, max_length=500)]


def _in_utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _whole_minute(at: datetime) -> datetime:
    if at.second or at.microsecond:
        raise ValueError("must be a whole minute, because the history counts by minutes")
    return at


def _whole_hour(at: datetime) -> datetime:
    if at.minute:
        raise ValueError("must be a whole hour, because the history counts by hours")
    return at


Minute = Annotated[datetime, AfterValidator(_in_utc), AfterValidator(_whole_minute)]
Hour = Annotated[Minute, AfterValidator(_whole_hour)]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Targets(_Fields):
    """What is promised; None: nothing."""

    success_percent: Annotated[float, Field(ge=50, lt=100)] | None = None
    p95_answer_seconds: Positive | None = None
    p95_first_token_seconds: Positive | None = None
    average_cost_usd: Positive | None = None
    p95_cost_usd: Positive | None = None

    @property
    def any(self) -> bool:
        """Whether something is promised."""
        return any(value is not None for _, value in self)


class Fewest(_Fields):
    """Below these numbers nobody is alerted: one failure of two requests says nothing."""

    requests: Annotated[int, Field(ge=1)] = 20
    failures: Annotated[int, Field(ge=1)] = 3


class Alerts(_Fields):
    """Which alerts are on."""

    success: bool = True
    latency: bool = True
    cost: bool = True
    fast_burn: bool = True
    slow_burn: bool = True
    burn_1h_5m: bool = True
    burn_6h_30m: bool = True
    spend: bool = True


Follows = Literal["proposed", "done"]


class Follow(_Fields):
    """What follows a burn is proposed in the message, or done by the worker that sends it."""

    fast_burn: Follows = "proposed"
    slow_burn: Follows = "proposed"


class SpendReview(_Fields):
    """`percent` of a month's budget used before the end of day `by_day` asks for a review."""

    percent: Percent = 80.0
    by_day: Annotated[int, Field(ge=1, le=28)] = 20


class _Period(_Fields):
    why: Text

    @model_validator(mode="after")
    def _ends(self) -> _Period:
        if self.end <= self.begin:  # type: ignore[attr-defined]  # both fields are the subclasses'
            raise ValueError("end must be later than begin")
        return self


class MaintenanceWindow(_Period):
    """From `begin` up to `end`, which is no part of it; UTC without a time zone."""

    begin: Minute
    end: Minute


class Abuse(_Period):
    """Traffic of one tenant that is left out, in whole hours."""

    tenant: Name
    begin: Hour
    end: Hour


class Maintenance(_Fields):
    """The windows, and how much of it is allowed."""

    minutes: Annotated[int, Field(ge=1, le=1440)] = 60
    per_quarter: Annotated[int, Field(ge=0, le=100)] = 2
    windows: tuple[MaintenanceWindow, ...] = ()

    @model_validator(mode="after")
    def _allowed(self) -> Maintenance:
        quarters: dict[tuple[int, int], int] = {}
        for window in self.windows:
            named = f"the window of {window.begin:%Y-%m-%d %H:%M}"
            if (window.end - window.begin).total_seconds() > self.minutes * 60:
                raise ValueError(f"{named} is longer than {self.minutes} minutes (`minutes`)")
            quarter = window.begin.year, (window.begin.month - 1) // 3
            quarters[quarter] = quarters.get(quarter, 0) + 1
            if quarters[quarter] > self.per_quarter:
                raise ValueError(f"{named} is one more than {self.per_quarter} in a quarter (`per_quarter`)")
        return self


class Dated(_Fields):
    """One line of the changelog of targets, or of the drills."""

    date: date
    what: Text


class Client(_Fields):
    """What only the documents for clients need."""

    service: Name = "AI service"
    contact: Text = "the person who sends you the monthly report"
    credit_percent: Percent | None = None
    trial_days: Annotated[int, Field(ge=1, le=365)] = 7
    changelog: tuple[Dated, ...] = ()
    drills: tuple[Dated, ...] = ()


class SloPolicy(_Fields):
    """The whole file."""

    version: Literal[1] = 1
    window_days: Annotated[int, Field(ge=1, le=365)] = 30
    targets: Targets = Targets()
    features: dict[Name, Targets] = Field(default_factory=dict)
    tenants: dict[Name, Targets] = Field(default_factory=dict)
    alerts: Alerts = Alerts()
    follow: Follow = Follow()
    fewest: Fewest = Fewest()
    spend: SpendReview = SpendReview()
    maintenance: Maintenance = Maintenance()
    abuse: tuple[Abuse, ...] = ()
    client: Client = Client()

    def of(self, dimension: str, name: str) -> Targets:
        """The targets of a feature or tenant, or with ALL of all jobs."""
        own = {ALL: {}, "feature": self.features, "tenant": self.tenants}[dimension].get(name)
        return self.targets if own is None else self.targets.model_copy(update=own.model_dump(exclude_unset=True))

    @property
    def promises(self) -> bool:
        """Whether there is any target."""
        return any(each.any for each in (self.targets, *self.features.values(), *self.tenants.values()))

    def maintained(self, minute: int) -> bool:
        """Whether a minute (Unix time / 60) is in a maintenance window."""
        at = minute * 60
        return any(w.begin.timestamp() <= at < w.end.timestamp() for w in self.maintenance.windows)


def load_slo_policy(environment: Environment) -> SloPolicy:
    """Read POLICIES_DIR/slo.yaml; without it nothing is promised. Raises ConfigurationError with every problem."""
    path = find_configuration("policies", "POLICIES_DIR", environment) / FILE
    return read_yaml(path, SloPolicy) if path.exists() else SloPolicy()
