"""A condition: one problem that exists now; and all of them at one time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.humanize import many, one_line
from worker.notify.kinds import Kind, key_of

FIRST = 5  # job ids in a message
LONGEST_NAME = 60  # characters of a tenant, in a title


@dataclass(frozen=True)
class Condition:
    """One problem that people should know about while it exists.

    `title`: what is wrong, "" for the title of the kind and the subject. `size`: how many jobs or workers, and whose: a push
    message shows only title and size. `lines`: its current state. `marks`: facts that get a line in the incident's story,
    the key when the fact begins and the value when it ends. `tenants`: late jobs by tenant; `late`: all late jobs.
    `until_ms`: Unix time of the next change that needs no person, such as the end of a cooldown. `since_ms`: when a refusal
    began, 0 if that is not known. `commands`: shell commands that help now, beside those of the kind.
    """

    kind: Kind
    subject: str = ""
    queue: str = ""
    lines: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    tenants: Mapping[str, int] = field(default_factory=dict)
    late: int = 0
    jobs: tuple[str, ...] = ()
    until_ms: int | None = None
    since_ms: int = 0
    title: str = ""
    size: str = ""
    commands: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return key_of(self.kind, self.subject, self.queue)


@dataclass(frozen=True)
class Snapshot:
    """All conditions at one time. `succeeded_ms`: by provider, the Unix time of the last answer of one of its routes.
    `half_open`: providers with a half-open route, which no job has probed yet. `workers`: how many of ours are alive.
    `overdue`: jobs past their promised time."""

    now_ms: int
    conditions: tuple[Condition, ...]
    succeeded_ms: Mapping[str, int] = field(default_factory=dict)
    half_open: frozenset[str] = frozenset()
    queues: tuple[str, ...] = ()
    workers: int = 1
    overdue: int = 0

    @property
    def late(self) -> int:
        """Jobs so late that their clients should get a message (`late_minutes` of policies/oncall.yaml)."""
        return sum(condition.late for condition in self.conditions)


def waiting_size(jobs: int) -> str:
    """`12 jobs wait`."""
    return f"{many(jobs, 'job')} wait" + ("s" if jobs == 1 else "")


def late_size(late: int, tenants: Mapping[str, int]) -> str:
    """`12 late of acme`; "" without late jobs."""
    return f"{late:,} late{of_tenants(tenants)}" if late else ""


def of_tenants(tenants: Mapping[str, int]) -> str:
    """` of acme`, ` of acme and 2 other clients`: the one with the most jobs is named."""
    if not tenants:
        return ""
    others = len(tenants) - 1
    named = one_line(next(iter(tenants)), LONGEST_NAME)
    return f" of {named}" + (f" and {many(others, 'other client')}" if others else "")
