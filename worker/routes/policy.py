"""policies/routing.yaml: how a job type's routes are chosen. The fields are explained at the head of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from producer.environment import Environment, find_configuration
from producer.errors import ConfigurationError, Problem
from producer.policy import Seconds, read_yaml, with_defaults
from worker.routes.route import Routes

Order = Literal["listed", "cost", "latency"]
MayLack = Literal["tools", "json_mode", "json_schema"]  # never vision: no answer is right without seeing the image

FILE = "routing.yaml"


def _place(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError("should be the name of a route, or a list of names")


Place = Annotated[str | tuple[str, ...], PlainValidator(_place)]  # one route, or a group


class RoutingPolicy(BaseModel):
    """How the routes of one job type are chosen. The fields are explained at the head of policies/routing.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Order = "listed"
    max_cost_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max_latency_seconds: Seconds | None = None
    output_tokens: Annotated[int, Field(ge=1)] = 1000
    pin: tuple[Place, ...] = ()
    baseline: str | None = None
    may_lack: tuple[MayLack, ...] = ()
    prompt_caching: bool = True

    @property
    def pinned(self) -> tuple[str, ...]:
        """The names of all routes in `pin`, those of its groups too."""
        return tuple(name for place in self.pin for name in ((place,) if isinstance(place, str) else place))


class Routing(BaseModel):
    """The whole file. A job type that is not in it is routed as `default`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    job_types: dict[str, RoutingPolicy] = Field(default_factory=dict)

    def of(self, job_type: str) -> RoutingPolicy:
        return self.job_types.get(job_type) or self.job_types.get("default") or RoutingPolicy()

    @property
    def by_latency(self) -> bool:
        """Whether any policy uses the latency of routes."""
        policies = self.job_types.values()
        return any(policy.order == "latency" or policy.max_latency_seconds is not None for policy in policies)


def load_routing(environment: Environment, job_types: Iterable[str], routes: Routes) -> Routing:
    """Read POLICIES_DIR/routing.yaml; without the file every job type uses the routes in the order of routes.json.

    Raises ConfigurationError with every problem, including job types and routes that do not exist.
    """
    path = find_configuration("policies", "POLICIES_DIR", environment) / FILE
    if not path.exists():
        return Routing()
    routing = read_yaml(path, Routing, lambda data: with_defaults(data, "job_types"))
    problems = list(_problems(str(path), routing, sorted(job_types), routes))
    if problems:
        raise ConfigurationError(problems)
    return routing


def _problems(where: str, routing: Routing, job_types: list[str], routes: Routes) -> Iterator[Problem]:
    known = routes.names
    default = routing.of("default")
    for job_type, policy in routing.job_types.items():
        at = f"job_types.{job_type}"
        if job_type not in job_types:
            yield Problem(where, at, "is no job type of jobs.yaml", f"it has {', '.join(job_types)}")
        for field, named in (("pin", policy.pinned), ("baseline", (policy.baseline,) if policy.baseline else ())):
            if job_type != "default" and getattr(policy, field) == getattr(default, field):
                continue  # inherited: the problem is reported at `default`
            for name in named:
                if name not in known:
                    yield Problem(
                        where, f"{at}.{field}", f"no route is named {name!r}", f"there are {', '.join(sorted(known))}"
                    )
