"""How full Redis is. It refuses new jobs before it is full, so that those that it has accepted can end."""

from __future__ import annotations

from dataclasses import dataclass

import redis

FULL_PERCENT = 95  # of maxmemory: from here on no job is accepted


@dataclass(frozen=True)
class Memory:
    """Bytes: used, and maxmemory."""

    used: int
    limit: int

    @property
    def percent(self) -> int:
        return 100 * self.used // self.limit

    @property
    def is_full(self) -> bool:
        """Whether no job is accepted."""
        return self.percent >= FULL_PERCENT

    def __str__(self) -> str:
        return f"{self.percent}% of its memory is used, {_megabytes(self.used)} of {_megabytes(self.limit)}"


def memory(client: redis.Redis) -> Memory | None:
    """None for a Redis without maxmemory, or one that does not say. Raises RedisError."""
    info = client.info("memory")
    limit = int(info.get("maxmemory") or 0)
    return Memory(int(info.get("used_memory") or 0), limit) if limit > 0 else None


def _megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f} MB"
