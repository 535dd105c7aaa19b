"""policies/budgets.yaml: what a month may cost by scope, what one job may, and what is given up near the end. The fields are
explained at the head of the file.

A scope is one of `total`, `provider:{p}`, `tenant:{t}`, `user:{tenant}/{user}`, `feature:{f}`. Caps are of a calendar month
in UTC, as the providers bill it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from producer.environment import Environment, find_configuration
from producer.job import LLMJob
from producer.policy import read_yaml, with_defaults
from worker.routes.names import canonical
from worker.routes.prices import PER_MILLION

log = logging.getLogger("failover.worker")

FILE = "budgets.yaml"
TOTAL = "total"
SECTIONS = ("providers", "tenants", "users", "features")


def _amount(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is no amount: US dollars as a number, as in 60")  # noqa: TRY004 - what pydantic listens to
    return value


Dollars = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), BeforeValidator(_amount)]
Tokens = Annotated[int, Field(ge=1, le=10**12)]


class Cap(BaseModel):
    """Of one scope and month."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hard_usd: Dollars | None = None
    soft_usd: Dollars | None = None
    tokens: Tokens | None = None

    @model_validator(mode="after")
    def _soft_first(self) -> Self:
        if self.hard_usd is not None and self.soft_usd is not None and self.soft_usd > self.hard_usd:
            raise ValueError("soft_usd is above hard_usd: it would never be reached")
        return self

    @property
    def sets(self) -> bool:
        """Whether it holds or tells anything."""
        return self.terms != (-1, -1, -1)

    @property
    def holds(self) -> bool:
        """Whether a call may be refused for it."""
        return self.hard_usd is not None or self.tokens is not None

    @property
    def terms(self) -> tuple[int, int, int]:
        """As lua/ledger_rows.lua takes it: hard and the basis of the alert thresholds in micro-dollars, tokens; -1 for none."""
        hard, soft = micros_of(self.hard_usd), micros_of(self.soft_usd)
        return hard, hard if soft < 0 else soft, -1 if self.tokens is None else self.tokens


class ProviderCap(Cap):
    """`tokens_per_minute`: of all its routes together."""

    tokens_per_minute: Tokens | None = None


class FeatureCap(Cap):
    """`max_*`: of one job."""

    max_cost_usd: Dollars | None = None
    max_input_tokens: Tokens | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    when_over: Literal["degrade", "abort"] = "degrade"


OLD_NAMES = {"ladder": "alert_thresholds", "safeguard": "cost_saving"}  # read too


def _also(old: str) -> Any:
    """A field that files may still call by its old name."""
    return Field(validation_alias=AliasChoices(OLD_NAMES[old], old))


class CostSaving(BaseModel):
    """What is given up at the last alert threshold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output_tokens: Annotated[int, Field(ge=1)] | None = 500
    critical_features: tuple[str, ...] = ()


class Budgets(BaseModel):
    """The whole file. Without it nothing is capped."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    version: Literal[1] = 1
    alert_thresholds: Annotated[tuple[Annotated[float, Field(gt=0, le=100)], ...], _also("ladder")] = (60.0, 85.0, 95.0)
    total: Cap = Cap()
    providers: dict[str, ProviderCap] = Field(default_factory=dict)
    tenants: dict[str, Cap] = Field(default_factory=dict)
    users: dict[str, Cap] = Field(default_factory=dict)
    features: dict[str, FeatureCap] = Field(default_factory=dict)
    cost_saving: Annotated[CostSaving, _also("safeguard")] = CostSaving()

    @field_validator("alert_thresholds")
    @classmethod
    def _climbs(cls, alert_thresholds: tuple[float, ...]) -> tuple[float, ...]:
        if not alert_thresholds or any(after <= before for before, after in pairwise(alert_thresholds)):
            raise ValueError("its steps climb, as in [60, 85, 95]: cost saving begins at the last one")
        return alert_thresholds

    @field_validator("users")
    @classmethod
    def _of_tenants(cls, users: dict[str, Cap]) -> dict[str, Cap]:
        if wrong := [name for name in users if name != "default" and "/" not in name]:
            raise ValueError(f"{wrong[0]} is a user of which tenant? As in acme/{wrong[0]}")
        return users

    @field_validator("providers")
    @classmethod
    def _by_one_name(cls, providers: dict[str, ProviderCap]) -> dict[str, ProviderCap]:
        by_name: dict[str, ProviderCap] = {}
        for name, cap in providers.items():
            if canonical(name) in by_name:
                raise ValueError(f"{name} is {canonical(name)} by another name, and stands twice")
            by_name[canonical(name)] = cap
        return by_name

    @property
    def named(self) -> dict[str, Cap]:
        """Every scope that the file gives a cap, `default` of a section being `{section}:default`."""
        sections = {section: getattr(self, section) for section in SECTIONS}
        caps = {f"{section[:-1]}:{name}": cap for section, found in sections.items() for name, cap in found.items()}
        return {scope: cap for scope, cap in {TOTAL: self.total, **caps}.items() if cap.sets}

    @property
    def wants_prices(self) -> bool:
        """Whether a cap in dollars refuses calls."""
        return any(cap.hard_usd is not None for cap in self.named.values())

    def cap_of(self, scope: str) -> Cap:
        """The file's cap of a scope; one that is not named has its section's default."""
        kind, _, name = scope.partition(":")
        if kind == TOTAL:
            return self.total
        section: Mapping[str, Cap] = getattr(self, f"{kind}s")
        return section.get(name) or section.get("default") or Cap()

    def feature(self, name: str) -> FeatureCap:
        return self.features.get(name) or self.features.get("default") or FeatureCap()

    def provider(self, name: str) -> ProviderCap:
        return self.providers.get(canonical(name)) or self.providers.get("default") or ProviderCap()


@dataclass(frozen=True)
class Owner:
    """Whose a call is, as its row says."""

    job: str
    tenant: str
    user: str
    feature: str
    queue: str
    lease: str

    @property
    def scopes(self) -> tuple[str, ...]:
        """Of tenant, user and feature, as lua/ledger_rows.lua spells them."""
        mine = [f"tenant:{self.tenant}"]
        if self.user:
            mine.append(f"user:{self.tenant.replace('/', '%2F')}/{self.user}")
        if self.feature:
            mine.append(f"feature:{self.feature}")
        return tuple(mine)

    @classmethod
    def of(cls, job: LLMJob, job_id: str, queue: str, lease: str) -> Owner:
        return cls(job_id, job.tenant_id, job.user_id, job.feature, queue, lease)


NOBODY = Owner("", "", "", "", "", "")


@dataclass(frozen=True)
class Ceiling:
    """The lowest hard caps of a month that concern a call: micro-dollars and whose they are, tokens; None for none."""

    micros: int | None = None
    scope: str = ""
    tokens: int | None = None


UNCAPPED = Ceiling()


def uncapped(_provider: str) -> Ceiling:
    return UNCAPPED


def micros_of(usd: float | None) -> int:
    """Whole micro-dollars, never more than the amount; -1 for none."""
    return -1 if usd is None else math.floor(round(usd * PER_MILLION, 3))


def load_budgets(environment: Environment) -> Budgets:
    """POLICIES_DIR/budgets.yaml; without it no cap holds. Raises ConfigurationError with every problem."""
    path = find_configuration("policies", "POLICIES_DIR", environment) / FILE
    return read_yaml(path, Budgets, _with_defaults) if path.exists() else Budgets()


def _with_defaults(data: Any) -> Any:
    """Each section's entries over its `default`; a section may be left out."""
    if not isinstance(data, dict):
        return {"version": data}  # an emptied file lifts no cap
    for old, new in OLD_NAMES.items():
        if old in data:
            log.warning("budgets.yaml uses an old name", extra={"old": old, "new": new})
    for section in SECTIONS:
        if data.get(section) is None:
            data = {name: value for name, value in data.items() if name != section}
        else:
            data = with_defaults(data, section)
    return data
