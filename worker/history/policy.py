"""policies/history.yaml: how much of what happened stays in Redis. Its fields are explained at the head of the file."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from producer.environment import Environment, find_configuration
from producer.policy import read_yaml

FILE = "history.yaml"
INSTALL = "pip install 'failover-worker[parquet]'"
Format = Literal["auto", "jsonl", "parquet"]


def has_pyarrow() -> bool:
    """Whether Parquet can be written."""
    return find_spec("pyarrow") is not None


class LedgerKept(BaseModel):
    """The bounds of the ledger's rows in Redis; what is beyond one of them leaves it, the oldest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: Annotated[int, Field(ge=100, le=50_000_000)] = 100_000
    megabytes: Annotated[float, Field(gt=0, le=1_000_000)] = 20.0
    days: Annotated[int, Field(ge=1, le=400)] = 45
    ambiguous_rows: Annotated[int, Field(ge=100, le=100_000)] = 5_000
    names: Annotated[int, Field(ge=10, le=10_000)] = 1_000
    format: Format = "auto"

    @field_validator("format")
    @classmethod
    def _can_be_written(cls, wanted: Format) -> Format:
        if wanted == "parquet" and not has_pyarrow():
            raise ValueError(f"parquet needs pyarrow: {INSTALL}")
        return wanted


class HistoryPolicy(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    ledger: LedgerKept = LedgerKept()


def load_history_policy(environment: Environment) -> HistoryPolicy:
    """Read POLICIES_DIR/history.yaml; without it the defaults hold. Raises ConfigurationError with every problem."""
    path = find_configuration("policies", "POLICIES_DIR", environment) / FILE
    return read_yaml(path, HistoryPolicy, lambda data: data) if path.exists() else HistoryPolicy()
