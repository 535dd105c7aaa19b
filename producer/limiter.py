"""How fast a tenant may hand in jobs: a rate and a burst, held in Redis for all web processes together."""

from __future__ import annotations

from pathlib import Path

from producer import keyspace
from producer.client import AsyncProducer
from producer.scripts import Script, ask_async

RATE = Script.load(Path(__file__).parent / "lua", "rate")


async def wait_ms(producer: AsyncProducer, tenant_id: str) -> int:
    """Take one job off the tenant's rate: 0, or the milliseconds until its next one. Raises RedisError: it is not sent again,
    as it would count twice."""
    policy = producer.policies.of_tenant(tenant_id)
    call = RATE.call([keyspace.rate(tenant_id)], [60_000 / policy.jobs_per_minute, policy.burst])
    (wait,) = await ask_async(producer.client, [call])
    return int(wait)
