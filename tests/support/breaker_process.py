"""One of several workers' breakers, with random outcomes: prints what it did in the order in which Redis saw it.

python -m tests.support.breaker_process REDIS_URL STEPS SEED
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Any

from pydantic_core import from_json

from producer import keyspace
from producer.connection import connect_async
from worker.breakers.local import Permit, Rules
from worker.breakers.registry import ADMIT, Breakers

ROUTE = "r"
RULES = Rules(failures=5, successes=2, cooldown_seconds=0.01, longest_cooldown_seconds=0.04)


async def main(url: str, steps: int, seed: int) -> None:
    client = connect_async(url, max_connections=1)
    chance = random.Random(seed)
    breakers = Breakers(client, f"process-{seed}", [ROUTE], RULES)
    breaker = breakers[ROUTE]

    async def seen(what: dict[str, Any], call: Any) -> Any:
        """The call, its place in the order of all, and Redis TIME, in one transaction."""
        await client.script_load(call.script.text)
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("INCR", "order")
            pipeline.execute_command("TIME")
            pipeline.execute_command(*call.words)
            order, (seconds, micros), reply = await pipeline.execute()
        raw = reply[-1]
        at_ms = int(seconds) * 1000 + int(micros) // 1000
        granted = reply[0] if len(reply) == 2 else None
        print(json.dumps({"order": order, "at": at_ms, **what, "granted": granted, "told": from_json(raw)}))
        breaker.hear(from_json(raw), newest=True)
        return reply

    for step in range(steps):
        admission = Permit(breaker.view.epoch, probe=False) if breaker.open_for_all() else None
        if admission is None:
            token = f"{seed}-{step}"
            call = ADMIT.call([keyspace.breaker(ROUTE)], [ROUTE, token, 5000, keyspace.BREAKERS])
            if (await seen({"event": "admit", "token": token}, call))[0] == 1:
                admission = Permit(breaker.view.epoch, probe=True, token=token)
        if admission is None:
            continue
        await asyncio.sleep(chance.choice((0, 0, 0.002)))
        outcome = chance.choices((False, True, None), (6, 3, 1))[0]
        breaker.record(admission, outcome, job=f"{seed}-{step}")
        told = {"event": "record", "outcome": outcome, "epoch": admission.epoch, "token": admission.token}
        await seen(told, breakers._call())
        breakers._number += 1
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
