"""`make bench-planner`: CPU that choosing routes and telling of it cost a job, in the worker process.

    python -m bench.planner [--jobs 20000]

Per job: the plan over four routes, its entry and its rejections in the trail, one attempt's entry with tokens and cost, and
both of them written as JSON, as they are kept. The policies: routes as listed; and everything at once (a cap, an order by
cost, a latency limit, context windows, capabilities, a canary) for a prompt of 4,000 characters.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from pydantic_core import to_json

from producer.job import LLMJob
from worker.routes.policy import Routing, RoutingPolicy
from worker.routes.prices import Price
from worker.routes.route import Route, Routes
from worker.routes.schema import Cold, RouteEntry
from worker.routing.attempt import RouteAttempt
from worker.routing.execution_context import JobContext, Spend, rejection
from worker.routing.plan import Plan
from worker.routing.planner import Planner

LIMIT_MS = 0.1
USAGE = {"prompt_tokens": 1150, "completion_tokens": 300, "total_tokens": 1450}


def routes(**fields: Any) -> Routes:
    tiers = (("anthropic", "hot"), ("haiku", "hot"), ("openai", "warm"), ("google", "warm"))
    made = []
    for place, (name, tier) in enumerate(tiers):
        price = Price(input=place + 1, output=place + 2)
        entry = RouteEntry(provider=name, model="m", base_url="http://x", price=price, **fields)
        made.append(Route(name, tier, entry, "http://x"))  # type: ignore[arg-type]  # hot or warm
    return Routes(tuple(made), (), Cold())


def one(planner: Planner, job: LLMJob, number: int) -> Plan:
    """What an execution does beside calling: plan, tell, account, encode."""
    planned = planner.plan(str(number), job, job.body)
    context, spend = JobContext("job", 1, job.body, "key", 0.0, plan=planned), Spend(30)
    spend.trail.append(planned.told(1, 0))
    spend.trail += [rejection(1, each.route, each.code, each.reason) for each in planned.rejected]
    attempt = RouteAttempt(planned.candidates[0], job.body, True)
    attempt.begin(None, 10.0, probe=False, breaker="closed")
    spend.record(context, attempt, None, usage=USAGE)
    to_json([entry.model_dump(exclude_defaults=True) for entry in spend.trail])
    return planned


def measure(planner: Planner, job: LLMJob, jobs: int) -> float:
    """Milliseconds of CPU a job."""
    one(planner, job, 0)
    began = time.process_time()
    for number in range(jobs):
        one(planner, job, number)
    return (time.process_time() - began) * 1000 / jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    jobs = parser.parse_args().jobs
    job = LLMJob.parse({"body": {"messages": [{"role": "user", "content": "Hello there. " * 308}]}})
    usual = Planner(routes(), Routing(), {})
    policy = RoutingPolicy(order="cost", max_cost_usd=1, max_latency_seconds=2)
    abilities = {"capabilities": ("tools", "json_mode"), "context_window": 200_000, "canary": 100}
    p95 = {"anthropic": 900, "haiku": 2500, "openai": 800, "google": 700}
    everything = Planner(routes(**abilities), Routing(job_types={"default": policy}), p95)
    found = {"as listed": measure(usual, job, jobs), "everything at once": measure(everything, job, jobs)}
    for name, ms in found.items():
        print(f"{name:20} {ms:.4f} ms of CPU a job")
    sys.exit(0 if max(found.values()) <= LIMIT_MS else 1)


if __name__ == "__main__":
    main()
