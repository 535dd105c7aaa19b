"""`failover drill ...`: drills on this machine alone, which pass or fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ops.local import embedded, session
from ops.options import as_json
from producer.job import JobResult, JobStatus, LLMJob
from producer.trail import Attempt, Planned, Rejection

BUDGET_USD = 0.0035
DEADLINE_SECONDS = 30.0
PROMPT = "Summarize yesterday's call with Acme in three sentences. " * 12


@click.group("drill")
def group() -> None:
    """Drills that pass or fail. They need no key, no Redis and no network."""


@group.command("golden-path")
@as_json
def golden_path(as_json: bool) -> None:
    """One job with a budget, whose first provider does not answer. Prints who answers, why, the cost, and the decision
    event."""
    from worker.reports.decision import decision_of

    result = _run(session.FOLDER / "drill")
    decision = decision_of(result)
    if as_json:
        click.echo(json.dumps(decision, indent=2))
    else:
        click.echo("\n".join(_report(result)))
        click.echo(f"decision recorded: {json.dumps(decision)}")
    passed = result.status is JobStatus.DONE and result.failover_hops == 1 and (result.cost_usd or 1) <= BUDGET_USD
    if not as_json:
        click.echo(
            "passed: one failover, within the budget"
            if passed
            else "FAILED: expected exactly one failover, within the budget"
        )
    sys.exit(0 if passed else 1)


def _run(folder: Path) -> JobResult:
    """Run one job with a worker, an embedded Valkey and three simulated providers."""
    from ops.simulators import provider
    from producer import Producer
    from producer.connection import connect
    from producer.policy import Policies
    from worker.configuration import Configuration
    from worker.routes.policy import Routing, RoutingPolicy
    from worker.routes.route import read_routes

    folder.mkdir(parents=True, exist_ok=True)
    policies = Policies.model_validate({"job_types": {"default": {"deadline_seconds": 10}}})
    routing = Routing(job_types={"default": RoutingPolicy(max_cost_usd=BUDGET_USD)})
    with embedded.running(folder) as url, provider.running() as providers:
        providers.behave("groq", fault="hang")
        path = folder / "routes.json"
        path.write_text(json.dumps(_map(providers)))
        with connect(url) as client, session.own_worker(url, Configuration(policies, read_routes(path, {}), routing)):
            client.flushdb()  # of the drill's own server
            producer = Producer(client, policies)
            return producer.wait(producer.enqueue(_job()), DEADLINE_SECONDS)


def _job() -> LLMJob:
    return LLMJob.parse(
        {"tenant_id": "drill", "body": {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 300}}
    )


def _map(providers: Any) -> dict[str, Any]:
    def route(provider: str, model: str, price: tuple[float, float], **more: Any) -> dict[str, Any]:
        prices = {"input": price[0], "output": price[1]}
        base = {"provider": provider, "model": model, "apiKeyEnv": "", "baseUrl": providers.base_url(provider)}
        return {**base, "price": prices, "timeoutSeconds": 1, **more}

    return {
        "hot": [route("groq", "llama-3.3-70b", (0.59, 0.79)), route("openai", "gpt-5-pro", (15, 120))],
        "warm": [route("anthropic", "claude-haiku-4-5", (1, 5), api="anthropic")],
    }


def _report(result: JobResult) -> list[str]:
    """The events of the job in order, one line each."""
    lines: list[str] = []
    number = 0
    for entry in result.trail:
        match entry:
            case Planned():
                estimates = ", ".join(f"{name} about ${usd:.6f}" for name, usd in entry.estimates_usd.items())
                lines.append(f"job {result.job_id}: order {entry.order}, budget ${entry.max_cost_usd:.4f}; {estimates}")
            case Rejection():
                lines.append(f"rejected {entry.route}: {entry.code}: {entry.rejected}")
            case Attempt():
                number += 1
                how = "answered" if entry.outcome == "ok" else f"failed: {entry.outcome} ({entry.detail})"
                lines.append(f"attempt {number} {entry.route}: {how}, {entry.ms} ms")
    if result.status is JobStatus.DONE:
        lines.append(f"final: {result.route}, cost ${result.cost_usd:.6f}, {result.run_ms} ms")
        lines.append(f"on the baseline route ${result.baseline_cost_usd:.6f}: {result.cost_delta_usd:+.6f}")
    else:
        lines.append(f"final: {result.status}: {result.dead_detail or result.waiting_for}")
    return lines
