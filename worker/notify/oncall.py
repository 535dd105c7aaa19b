"""policies/oncall.yaml: who is on call, who writes to clients, and how soon and how often messages are sent."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from producer.environment import Environment, find_configuration, packaged
from producer.policy import read_yaml

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Positive = Annotated[float, Field(gt=0)]
FILE = "policies/oncall.yaml"
_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")


class Person(BaseModel):
    """A person on call; without `days` and `hours`, always."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    contact: Annotated[str, Field(max_length=200)] = ""
    timezone: str = "UTC"
    days: tuple[Day, ...] = DAYS
    hours: str | None = None

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is not a time zone, such as Asia/Bangkok") from None
        return name

    @field_validator("hours")
    @classmethod
    def _from_to(cls, hours: str | None) -> str | None:
        if hours is not None and not _HOURS.fullmatch(hours):
            raise ValueError('is not a time range, such as "08:00-20:00"')
        return hours

    def on_call(self, now: datetime) -> bool:
        """Whether the person is on call at `now`, which has a time zone."""
        local = now.astimezone(ZoneInfo(self.timezone))
        today, at = local.weekday(), local.time()
        begin, end = (time.fromisoformat(text) for text in (self.hours or "00:00-00:00").split("-"))
        if begin < end:
            return DAYS[today] in self.days and begin <= at < end
        if at >= begin:  # hours across midnight belong to the day on which they begin
            return DAYS[today] in self.days
        return at < end and DAYS[today - 1] in self.days

    def __str__(self) -> str:
        return f"{self.name} ({self.contact})" if self.contact else self.name


class OnCall(BaseModel):
    """The content of policies/oncall.yaml. The first lines of that file explain the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    on_call: tuple[Person, ...] = ()
    tells_clients: dict[str, str] = Field(default_factory=dict)
    late_minutes: Positive = 15.0
    quiet_minutes: Positive = 15.0
    reminder_minutes: Positive = 30.0
    digest_minutes: Positive = 5.0
    edit_seconds: Positive = 15.0
    thread_seconds: Positive = 60.0
    hold_seconds: Annotated[float, Field(ge=0)] = 5.0
    steady_seconds: Annotated[float, Field(ge=0)] = 60.0
    no_worker_seconds: Annotated[float, Field(ge=0)] = 45.0
    flood_jobs: Annotated[int, Field(ge=1)] | None = 1000
    flood_percent: Annotated[float, Field(gt=0, le=100)] = 50.0

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, data: Any) -> Any:
        if isinstance(data, dict) and "spend_percent" in data:
            raise ValueError("spend_percent is now `alert_thresholds` in budgets.yaml: remove it from this file")
        return data

    def now(self, at_ms: int) -> str:
        """The person on call at a Unix time in milliseconds, with the contact; "" for nobody."""
        now = datetime.fromtimestamp(at_ms / 1000, UTC)
        return next((str(person) for person in self.on_call if person.on_call(now)), "")

    def writes_to(self, tenant: str, at_ms: int) -> str:
        """Who writes to this client; "" for nobody."""
        return self.tells_clients.get(tenant) or self.tells_clients.get("default") or self.now(at_ms)


def load_on_call(environment: Environment) -> OnCall:
    """POLICIES_DIR/oncall.yaml, or else the packaged one. Raises ConfigurationError."""
    own = find_configuration("policies", "POLICIES_DIR", environment) / "oncall.yaml"
    return read_yaml(own if own.exists() else packaged("policies") / "oncall.yaml", OnCall)
