"""`failover drill ...`: drills on this machine alone, or on one feature of a staging or production, which pass or fail."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ops.local import embedded, session
from ops.options import Group, as_json
from producer.connection import redis_url
from producer.environment import Environment
from producer.errors import UsageError
from producer.job import JobResult, JobStatus, LLMJob
from producer.trail import Attempt, Planned, Rejection

BUDGET_USD = 0.0035
DEADLINE_SECONDS = 30.0
PROMPT = "Summarize yesterday's call with Acme in three sentences. " * 12


@click.group("drill", cls=Group)
def group() -> None:
    """Drills that pass or fail. They need no key, no Redis and no network; only --feature runs on what you have."""


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


common_options = (
    click.option("--unattended", is_flag=True, help="Ask nobody anything, as in CI. Also if there is no terminal."),
    click.option(
        "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="[default: .failover/drills]"
    ),
    as_json,
)


def drill_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a drill that leaves a report."""
    for option in reversed(common_options):
        command = option(command)
    return command


@group.command()
@drill_options
@click.pass_obj
def lisbon(environment: Environment, unattended: bool, output: Path | None, as_json: bool) -> None:
    """The Lisbon Test: blocked domains, a broken gateway, a budget at 85%, café Wi-Fi, a hand-over nine time zones away.
    Exit code 1 if it fails."""
    _hold(environment, "lisbon", None, unattended, output, as_json)


@group.command()
@click.option("--option", type=click.Choice(["A", "B", "C"], case_sensitive=False), default="A", show_default=True)
@click.option(
    "--feature",
    help="On REDIS_URL, with the workers and providers there: jobs of this feature alone meet the fault. 20 real jobs.",
)
@drill_options
@click.pass_obj
def failover(
    environment: Environment, option: str, feature: str | None, unattended: bool, output: Path | None, as_json: bool
) -> None:
    """The failover drill. A: the primary key is revoked; B: egress to the primary is cut; C: the limit of the first token is
    absurdly low. Exit code 1 if it fails."""
    if feature and redis_url(environment) is None:
        raise UsageError("--feature runs on real workers: set REDIS_URL, or leave it out for the simulator")
    name = f"{'feature' if feature else 'failover'}_{option.lower()}"
    _hold(environment, name, feature, unattended, output, as_json)


@group.command()
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--incident", default="2026-04-07", show_default=True, help="The day of a past outage.")
@click.option(
    "--incidents", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file of outages of your own."
)
@click.option(
    "--routes",
    "others",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="What if: also with this routes.json. Repeatable.",
)
@click.option(
    "--policies", type=click.Path(exists=True, file_okay=False, path_type=Path), help="What if: also with these."
)
@click.option("--job-type", default="default", show_default=True)
@click.option(
    "--slots", default=100, show_default=True, type=click.IntRange(1, 100_000), help="Jobs at once, of all workers."
)
@click.option(
    "--rate",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1000, min_open=True),
    help="Arrivals so many times denser.",
)
@click.option("--seed", default=1, show_default=True, type=int)
@as_json
@click.pass_obj
def replay(environment: Environment, /, trace: Path, incident: str, as_json: bool, **given: Any) -> None:
    """An outage of the past with the arrivals of TRACE, a CSV with time, prompt and answer tokens: what would have been late,
    dead, saved and paid with today's routes and policies, with one vendor, and without a queue. In simulated time."""
    from ops.drills.replay.data import FILE, load_incident, load_trace
    from ops.drills.replay.run import lines, replayed
    from worker.configuration import Configuration

    def loaded(**changed: str) -> Configuration:
        return Configuration.load({**environment, **changed}, tenants_keys=False)

    maps = [("today's map", loaded()), *((path.name, loaded(ROUTES_FILE=str(path))) for path in given["others"])]
    if given["policies"]:
        maps.append((f"policies {given['policies'].name}", loaded(POLICIES_DIR=str(given["policies"]))))
    known = load_incident(incident, given["incidents"] or FILE)
    how = {name: given[name] for name in ("job_type", "slots", "seed", "rate")}
    found = replayed(load_trace(trace), incident, known, maps, **how)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    click.echo(f"{incident}, {found.what}: {found.trace_jobs:,} jobs, seed {found.seed}")
    rows = list(lines(found))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *cells in rows:
        told = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        click.echo("  ".join([first.ljust(widths[0]), *told]).rstrip())


@group.command("list")
@click.option(
    "-o", "--output", "folder", type=click.Path(file_okay=False, path_type=Path), help="[default: .failover/drills]"
)
@as_json
def list_drills(folder: Path | None, as_json: bool) -> None:
    """List the drills that were held here, the newest first."""
    from dataclasses import asdict

    from ops.drills.report import FOLDER, held, verdict

    found = list(held(folder or FOLDER))
    if as_json:
        kept = ("name", "title", "at", "who", "passed", "seconds", "closeout", "sha256")
        click.echo(
            json.dumps([{**{k: asdict(each)[k] for k in kept}, "as_signed": ok} for each, ok in found], indent=2)
        )
        return
    for each, as_signed in found:
        changed = "" if as_signed else "; the report was changed after it was signed"
        click.echo(f"{each.id}  {verdict(each)}, {each.closeout}, by {each.who}{changed}")
    if not found:
        click.echo("no drill was held here yet: failover drill lisbon")


def _hold(
    environment: Environment, name: str, feature: str | None, unattended: bool, output: Path | None, as_json: bool
) -> None:
    from dataclasses import asdict

    from ops.drills.hold import hold, post_closeout
    from ops.drills.record import record
    from ops.drills.report import FOLDER, verdict, written

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    attended = not unattended and not as_json and sys.stdin.isatty()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(session.reached(environment))[1] if redis_url(environment) else None
        report = hold(environment, name, feature, client, say, attended=attended)
        paths = written(report, output or FOLDER)
        if client is not None:
            record(client, report)
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        click.echo(f"{report.closeout}")
        click.echo(f"{report.title}: {verdict(report)} in {report.seconds:.0f} s; {', '.join(map(str, paths))}")
        for follow_up in report.follow_ups:
            click.echo(f"  [ ] {follow_up}")
    if feature:
        post_closeout(environment, report, say)
    sys.exit(0 if report.passed else 1)


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
    with embedded.scratch(folder) as url, provider.running() as providers:
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
