"""The rate of a tenant's jobs over HTTP, for all web processes together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from producer import keyspace
from producer.client import AsyncProducer
from producer.errors import TooManyJobs
from producer.scripts import Script, ask_async

RATE = Script.load(Path(__file__).parent.parent / "lua", "rate")


@dataclass(frozen=True)
class Rate:
    """A tenant's rate after one more job: `limit` jobs at once, `left` of them now, all again in `reset_seconds`."""

    limit: int
    left: int
    reset_seconds: float

    def headers(self) -> dict[str, str]:
        """The headers that OpenAI's SDKs read."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.left),
            "x-ratelimit-reset-requests": f"{self.reset_seconds:.3f}s",
        }


async def counted(producer: AsyncProducer, tenant_id: str) -> Rate:
    """Count one job against the tenant's rate. Raises TooManyJobs, RedisError. The script is not resent, because it would
    count twice."""
    policy = producer.policies.of_tenant(tenant_id)
    call = RATE.call([keyspace.rate(tenant_id)], [60_000 / policy.jobs_per_minute, policy.burst])
    ((wait_ms, left, reset_ms),) = await ask_async(producer.client, [call])
    if wait_ms:
        raise TooManyJobs(tenant_id, wait_ms / 1000)
    return Rate(policy.burst, left, reset_ms / 1000)
