"""policies/budgets.yaml: caps on the cost of a month by scope, caps on one job, alert thresholds and cost saving.

The fields are explained at the head of the file. A scope is one of `total`, `provider:{p}`, `tenant:{t}`,
`user:{tenant}/{user}`, `feature:{f}`. Caps are for a calendar month in UTC, as the providers bill it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from producer.environment import Environment, find_configuration
from producer.job import LLMJob
from producer.policy import read_yaml, with_defaults
from worker.humanize import money
from worker.routes.names import canonical
from worker.routes.prices import PER_MILLION

log = logging.getLogger("failover.worker")

FILE = "budgets.yaml"
TOTAL = "total"
REST = "rest"  # `rest:user`, `rest:feature`: those whose sums are not kept apart (lua/ledger_sums.lua)
SCOPES = "total, provider:P, tenant:T, user:TENANT/USER or feature:F"
_SCOPE = re.compile(r"total|(?:provider|tenant|feature):.+|user:[^/]{1,128}/.+")
SECTIONS = ("providers", "tenants", "users", "features")


def scope_named(text: str) -> str | None:
    """The scope that a person has named, as the ledger names it; None if it is not one of SCOPES."""
    if not _SCOPE.fullmatch(text):
        return None
    kind, _, name = text.partition(":")
    return f"provider:{canonical(name)}" if kind == "provider" else text


def _amount(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be US dollars as a number, as in 60")  # noqa: TRY004 - what pydantic listens to
    return value


Dollars = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), BeforeValidator(_amount)]
Tokens = Annotated[int, Field(ge=1, le=10**12)]


class Cap(BaseModel):
    """The caps of one scope for a month; None for no cap. A hard cap refuses calls; the alert thresholds refer to the soft
    cap, or to the hard one if there is no soft one."""

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
        """Whether it has any cap, hard or soft."""
        return self.terms != (-1, -1, -1)

    @property
    def holds(self) -> bool:
        """Whether it can refuse a call."""
        return self.hard_usd is not None or self.tokens is not None

    @property
    def terms(self) -> tuple[int, int, int]:
        """(hard cap, basis of the alert thresholds, tokens) as lua/ledger_rows.lua takes it: micro-dollars; -1 for none."""
        hard, soft = micros_of(self.hard_usd), micros_of(self.soft_usd)
        return hard, hard if soft < 0 else soft, -1 if self.tokens is None else self.tokens

    def __str__(self) -> str:
        amounts = {"hard": self.hard_usd, "soft": self.soft_usd}
        parts = [f"{name} {money(usd)}" for name, usd in amounts.items() if usd is not None]
        parts += [f"{self.tokens:,} tokens"] if self.tokens is not None else []
        return ", ".join(parts) or "no cap"


NO_CAP = Cap()  # one for all: a listing of a month asks for thousands


class ProviderCap(Cap):
    """The caps of a provider. `tokens_per_minute`: of all its routes together."""

    tokens_per_minute: Tokens | None = None


class FeatureCap(Cap):
    """The caps of a feature. `max_*`: of one job."""

    max_cost_usd: Dollars | None = None
    max_input_tokens: Tokens | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    when_over: Literal["degrade", "abort"] = "degrade"


OLD_NAMES = {"ladder": "alert_thresholds", "safeguard": "cost_saving"}  # accepted for older files


def _also(old: str) -> Any:
    """A field that may also be given by its old name."""
    return Field(validation_alias=AliasChoices(OLD_NAMES[old], old))


class CostSaving(BaseModel):
    """Cost-saving mode, which begins at the last alert threshold. `output_tokens`: the limit for jobs that name none, None
    for no limit. `critical_features`: these features are not affected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output_tokens: Annotated[int, Field(ge=1)] | None = 500
    critical_features: tuple[str, ...] = ()


class Budgets(BaseModel):
    """The whole file. Without it there are no caps."""

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
        """The cap of every scope that has one in the file; a section's `default` is named as in `tenant:default`."""
        sections = {section: getattr(self, section) for section in SECTIONS}
        caps = {f"{section[:-1]}:{name}": cap for section, found in sections.items() for name, cap in found.items()}
        return {scope: cap for scope, cap in {TOTAL: self.total, **caps}.items() if cap.sets}

    @property
    def wants_prices(self) -> bool:
        """Whether there is a hard cap in dollars, which needs the prices of routes."""
        return any(cap.hard_usd is not None for cap in self.named.values())

    def cap_of(self, scope: str) -> Cap:
        """The cap of a scope; a scope that the file does not name has its section's default."""
        kind, _, name = scope.partition(":")
        if kind == TOTAL:
            return self.total
        if kind == REST:
            return NO_CAP  # no cap is for what has no name of its own
        section: Mapping[str, Cap] = getattr(self, f"{kind}s")
        return section.get(name) or section.get("default") or NO_CAP

    def feature(self, name: str) -> FeatureCap:
        return self.features.get(name) or self.features.get("default") or FeatureCap()

    def provider(self, name: str) -> ProviderCap:
        return self.providers.get(canonical(name)) or self.providers.get("default") or ProviderCap()


@dataclass(frozen=True)
class Owner:
    """The job, tenant, user, feature, queue and lease that a call belongs to, as its ledger row holds them."""

    job: str
    tenant: str
    user: str
    feature: str
    queue: str
    lease: str

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of tenant, user and feature, as lua/ledger_sums.lua spells them."""
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
    """The lowest hard caps of a month for a call: micro-dollars, the scope of that cap, tokens; None for no cap."""

    micros: int | None = None
    scope: str = ""
    tokens: int | None = None


UNCAPPED = Ceiling()


def uncapped(_provider: str) -> Ceiling:
    return UNCAPPED


def micros_of(usd: float | None) -> int:
    """Whole micro-dollars, rounded down; -1 for None."""
    return -1 if usd is None else math.floor(round(usd * PER_MILLION, 3))


def load_budgets(environment: Environment) -> Budgets:
    """Read POLICIES_DIR/budgets.yaml; without the file there are no caps. Raises ConfigurationError with every problem."""
    path = find_configuration("policies", "POLICIES_DIR", environment) / FILE
    return read_yaml(path, Budgets, _with_defaults) if path.exists() else Budgets()


def _with_defaults(data: Any) -> Any:
    """Lay each section's entries over its `default`; a section may be left out."""
    if not isinstance(data, dict):
        return {"version": data}  # an empty file is an error: it must not remove all caps
    for old, new in OLD_NAMES.items():
        if old in data:
            log.warning("budgets.yaml uses an old name", extra={"old": old, "new": new})
    for section in SECTIONS:
        if data.get(section) is None:
            data = {name: value for name, value in data.items() if name != section}
        else:
            data = with_defaults(data, section)
    return data
