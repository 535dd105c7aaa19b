"""What this machine allows a worker: how many jobs at once fit its memory and its file descriptors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from producer.environment import Environment
from producer.errors import ConfigurationError, Problem
from worker.control.descriptors import raise_descriptor_limit
from worker.memory import Limit, Memory, limit_of

OWN_DESCRIPTORS = 64  # of a worker: Redis, logs, messages, files that it reads
DEFAULT_SLOTS = 100  # jobs at once, where nobody says how many
MB = 1024 * 1024
TYPICAL = 20_000  # bytes of a prompt, or of an answer


@dataclass(frozen=True)
class Machine:
    """`memory`: the most that this process may use. `descriptors`: how many it may have open."""

    memory: Limit
    descriptors: int

    @classmethod
    def of(cls, environment: Environment) -> Machine:
        """This machine, with the soft limit of descriptors raised. Raises ConfigurationError."""
        try:
            memory = limit_of(environment.get("WORKER_MEMORY_MB"))
        except ValueError:
            fix = "write megabytes, as in WORKER_MEMORY_MB=512"
            raise ConfigurationError([Problem("WORKER_MEMORY_MB", "", "is no number", fix)]) from None
        return cls(memory, raise_descriptor_limit())

    def shared_by(self, processes: int) -> Machine:
        """What one of so many processes may use."""
        if processes == 1:
            return self
        source = f"{self.memory.source}, shared by {processes} processes"
        return replace(self, memory=Limit(self.memory.size // processes, source))

    def slots(self, wanted: int) -> tuple[int, str]:
        """How many jobs at once, at most `wanted`, and why not so many, with the fix; "" if nothing is in the way."""
        by_descriptors, by_memory = max(1, self.descriptors - OWN_DESCRIPTORS), Memory(self.memory).slots(TYPICAL)
        if wanted <= min(by_descriptors, by_memory):
            return wanted, ""
        if by_descriptors <= by_memory:
            return (
                by_descriptors,
                f"{self.descriptors} open files are allowed — raise it with `ulimit -n`, or start more workers",
            )
        return by_memory, f"{self.told()} — use a larger plan, or start more workers"

    def told(self) -> str:
        """`512 MB (cgroup) hold 15 jobs of 1 MB at once`."""
        jobs = Memory(self.memory).slots(MB // 2)
        return f"{self.memory.size // MB:,} MB ({self.memory.source}) hold {jobs:,} jobs of 1 MB at once"
