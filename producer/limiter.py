"""Limits how fast a tenant may submit jobs over HTTP: a rate and a burst, for all web processes together (in Redis)."""

from __future__ import annotations

from pathlib import Path

from producer import keyspace
from producer.client import AsyncProducer
from producer.scripts import Script, ask_async

RATE = Script.load(Path(__file__).parent / "lua", "rate")


async def wait_ms(producer: AsyncProducer, tenant_id: str) -> int:
    """Count one job against the tenant's rate. Returns 0 if it is accepted, else the milliseconds until the next one is.

    Raises RedisError. The script is not resent, because it would count twice.
    """
    policy = producer.policies.of_tenant(tenant_id)
    call = RATE.call([keyspace.rate(tenant_id)], [60_000 / policy.jobs_per_minute, policy.burst])
    (wait,) = await ask_async(producer.client, [call])
    return int(wait)
