"""Holds one drill from its first line to its report, and tells how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import click
import redis

from ops.announcing import announced
from ops.drills.on_feature import on_feature, pre_checks, target_of
from ops.drills.report import DrillReport, report_of, verdict
from ops.drills.run import Drill
from ops.drills.scenario import Question, load_scenario
from ops.drills.stage import Stage
from ops.local import session
from producer import Producer
from producer.environment import Environment
from producer.errors import UsageError
from producer.policy import load_policies
from worker.notify.channels.base import Posted
from worker.notify.incident_text import Message


def hold(
    environment: Environment,
    name: str,
    feature: str | None,
    client: redis.Redis | None,
    say: Callable[[str], None],
    *,
    attended: bool,
) -> DrillReport:
    """Hold a drill: on the feature, else on the simulator. `client`: of REDIS_URL. `attended`: a person is asked."""

    scenario, at, began = load_scenario(name), time.time(), time.monotonic()
    where = f"on the feature {feature}, with real providers" if feature else "on the simulator"
    say(f"{scenario.title}, {where}; at most {scenario.minutes:g} minutes. Ctrl-C ends it, and every fault with it.")
    stage = _feature_stage(environment, client, feature, scenario.minutes, say) if feature and client else None
    for role in scenario.roles if attended else ():
        say(f"  {role}")
    for line in scenario.checklist if attended else ():
        click.confirm(f"  {line}?", abort=True, default=True)

    def ask(question: Question) -> str:
        return str(click.prompt(f"         {question.text}"))

    folder = session.FOLDER / "drill" / name
    results = Drill(scenario, folder, say, ask if attended else None, on=stage).run()
    seconds = time.monotonic() - began
    return report_of(scenario, results, at=at, who=session.who(), unattended=not attended, seconds=seconds)


def _feature_stage(
    environment: Environment, client: redis.Redis, feature: str, minutes: float, say: Callable[[str], None]
) -> AbstractContextManager[Stage]:
    """The stage on real providers, after its checks. Raises UsageError if one of them fails: then no fault was set."""

    producer, target = Producer(client, load_policies(environment)), target_of(client, feature)
    say(f"the fault concerns {target.provider} for jobs of the feature {feature}: {', '.join(target.routes)}")
    findings = list(pre_checks(producer, target))
    for finding in findings:
        say(f"         {'ok  ' if finding.passed else 'FAIL'} {finding}")
    if not all(finding.passed for finding in findings):
        raise UsageError("a check before the drill failed, so no fault was set: mend it, then hold the drill")
    return on_feature(producer, target, session.who(), minutes)


def post_closeout(environment: Environment, report: DrillReport, say: Callable[[str], None]) -> None:
    """Tell the on-call channels how it ended."""

    lines = (report.title, *report.closeout.split(", "), *(f"To do: {each}" for each in report.follow_ups))
    mark = "🟢" if report.passed else "🔴"
    message = Message(
        f"{mark} A drill by {report.who}: {verdict(report)}", lines, ("failover drill list",), "failover drill"
    )
    for channel, outcome in announced(environment, message, "drill"):
        say(f"{channel}: {'the closeout arrived' if isinstance(outcome, Posted) else outcome.why}")
