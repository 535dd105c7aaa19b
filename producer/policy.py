"""policies/*.yaml as validated models. A wrong file fails at start, with file, line, field and the fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from producer.environment import Environment, find_configuration
from producer.errors import ConfigurationError, InvalidJob, Problem, what_is_wrong

Capability = Literal["tools", "json_mode", "json_schema", "vision"]
Degrade = Literal["shorter_context", "smaller_model", "human_review"]
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400, allow_inf_nan=False)]


def _variable_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("must be the name of an environment variable, not its value")
    return value


VariableName = Annotated[str, AfterValidator(_variable_name)]
Lines = dict[tuple[str, ...], int]
MOST_PLACES = 20_000  # values in one policy file
M = TypeVar("M", bound=BaseModel)


class Backoff(BaseModel):
    """Full jitter: the wait before execution n + 1 is uniform in 0 .. min(first * 2^n, max) seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: Seconds = 1.0
    max: Seconds = 60.0


class JobPolicy(BaseModel):
    """One job type. The fields are explained at the head of policies/jobs.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_time_to_answer_seconds: Seconds = 3600.0
    expires_after_seconds: Seconds = 86400.0
    deadline_seconds: Seconds = 120.0
    executions: Annotated[int, Field(ge=1, le=100)] = (
        8  # so that in an outage breakers open before a lone job has used them up
    )
    attempts: Annotated[int, Field(ge=1, le=1000)] = 60
    backoff_seconds: Backoff = Backoff()
    degrade: tuple[Degrade, ...] = ()
    requires: tuple[Capability, ...] = ()
    first_token_seconds: Seconds | None = None
    failover_on_refusal: bool = False
    stream: Literal["whole", "live"] = "whole"
    when_late: Literal["wait", "accept"] = "wait"
    when_client_leaves: Literal["continue", "cancel"] = "continue"
    keep_results_seconds: Annotated[int, Field(ge=60, le=10 * 365 * 86400)] = 7 * 86400
    keep_dead_seconds: Annotated[int, Field(ge=60, le=10 * 365 * 86400)] = 90 * 86400

    @property
    def human_review(self) -> bool:
        """Whether a person may answer in place of a model."""
        return "human_review" in self.degrade


class TenantPolicy(BaseModel):
    """One tenant. The fields are explained at the head of policies/tenants.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs_per_minute: Annotated[float, Field(gt=0)] = 1200.0
    burst: Annotated[int, Field(ge=1)] = 300
    callback_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000)] | None = None
    callback_secret_env: VariableName | None = None
    keys: dict[str, VariableName] = Field(default_factory=dict)  # by provider


class Tenants(BaseModel):
    """policies/tenants.yaml. A tenant that is not in it has the policy `default`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    tenants: dict[str, TenantPolicy] = Field(default_factory=dict)


class Policies(BaseModel):
    """policies/jobs.yaml, and the tenants. The job type `default` always exists."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    job_types: dict[str, JobPolicy] = Field(default_factory=dict)
    tenants: Tenants = Tenants()

    def of_tenant(self, tenant_id: str) -> TenantPolicy:
        return self.tenants.tenants.get(tenant_id) or self.tenants.tenants.get("default") or TenantPolicy()

    def of(self, job_type: str) -> JobPolicy:
        """The policy of a job type. Raises InvalidJob for one that is not in the file, so that a typo cannot select a wrong
        policy."""
        policy = self.job_types.get(job_type)
        if policy is None:
            raise InvalidJob(
                "job_type", f"{job_type!r} is not in policies/jobs.yaml; it has {', '.join(self.job_types)}"
            )
        return policy

    def of_known(self, job_type: str) -> JobPolicy:
        """The policy of an accepted job. If its type has been removed from the file since, the policy of `default`."""
        return self.job_types.get(job_type) or self.job_types["default"]


def load_policies(environment: Environment) -> Policies:
    """Read jobs.yaml and, if it exists, tenants.yaml of POLICIES_DIR. Raises ConfigurationError with every problem of the
    first wrong file."""
    folder = find_configuration("policies", "POLICIES_DIR", environment)
    policies = read_policies(folder / "jobs.yaml")
    tenants = folder / "tenants.yaml"
    if not tenants.exists():
        return policies
    return policies.model_copy(
        update={"tenants": read_yaml(tenants, Tenants, lambda data: with_defaults(data, "tenants"))}
    )


def read_policies(path: Path) -> Policies:
    """Read one jobs.yaml. Raises ConfigurationError."""
    return read_yaml(path, Policies, lambda data: with_defaults(data, "job_types"))


def read_yaml(path: Path, model: type[M], prepared: Callable[[Any], Any] = lambda data: data, context: Any = None) -> M:
    """Read one policy file as `model`. `prepared` changes the data before it is checked; `context` is for its validators.
    Raises ConfigurationError with every problem."""
    try:
        text = path.read_text(encoding="utf-8")
        data, lines = load_yaml(text)
    except OSError as error:
        fix = f"set POLICIES_DIR to a folder that holds {path.name}"
        raise ConfigurationError([Problem(str(path), "", error.strerror or str(error), fix)]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an invalid date is a ValueError
        raise ConfigurationError([Problem(str(path), "", f"is not YAML: {_one_line(error)}")]) from None
    try:
        return model.model_validate(prepared(data), context=context)
    except ValidationError as error:
        raise ConfigurationError(_problems(path, lines, error)) from None


def load_yaml(text: str) -> tuple[Any, Lines]:
    """(the data of a YAML text, the line of each value by its path). Raises YAMLError, ValueError or RecursionError, also
    for a small text that aliases would make very large."""
    lines: Lines = {}
    if (root := yaml.compose(text, Loader=yaml.SafeLoader)) is not None:
        _number_lines(root, (), lines)
    return yaml.safe_load(text), lines


def with_defaults(data: Any, section: str) -> Any:
    """Lay each entry of the section over the fields of its `default`."""
    if not isinstance(data, dict) or not isinstance(data.get(section), dict):
        return data if isinstance(data, dict) and section in data else {section: "missing"}
    default = data[section].get("default") or {}
    if not isinstance(default, dict):
        return data
    types = {
        name: {**default, **(fields or {})} if isinstance(fields or {}, dict) else fields
        for name, fields in {"default": default, **data[section]}.items()
    }
    return {**data, section: types}


def _problems(path: Path, lines: Lines, error: ValidationError) -> list[Problem]:
    problems = []
    for details in error.errors(include_url=False, include_input=False, include_context=False):
        field = tuple(str(part) for part in details["loc"])
        if len(field) >= 3 and field[:3] not in lines and (field[0], "default", field[2]) in lines:
            continue  # inherited from `default`: the problem is reported there
        line = next((lines[field[:n]] for n in range(len(field), 0, -1) if field[:n] in lines), None)
        what = what_is_wrong(details["type"], details["msg"])
        problems.append(Problem(f"{path}:{line}" if line else str(path), ".".join(field), what))
    return problems


def _number_lines(node: yaml.Node, at: tuple[str, ...], lines: Lines) -> None:
    if len(lines) > MOST_PLACES:
        raise ValueError(f"it has more than {MOST_PLACES} places, or circular aliases")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            if here in lines:
                raise ValueError(f"{'.'.join(here)} stands twice, in lines {lines[here]} and {key.start_mark.line + 1}")
            lines[here] = key.start_mark.line + 1
            _number_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            lines[(*at, str(position))] = item.start_mark.line + 1
            _number_lines(item, (*at, str(position)), lines)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
