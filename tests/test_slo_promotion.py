"""The promotion gate: a good canary passes; a slow, a dear and a JSON-breaking one do not."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from ops.reports.slo.promotion import FORMS, Sample, Trial, gather, judge, sample_of
from ops.reports.slo.state import ScopeState
from producer import JobResult, Producer
from producer.job import JobStatus
from producer.trail import Attempt
from tests.support.jobs import chat
from tests.support.past import Ended, write
from tests.support.transitions import Q, claim, settle
from tests.support.workshop import Workshop
from worker.objectives.indicators import Counts, ErrorBudget
from worker.objectives.policy import SloPolicy, Targets
from worker.queue.outcomes import Done

POLICY = SloPolicy(targets=Targets(success_percent=99.5, p95_answer_seconds=2.5, average_cost_usd=0.015))
JSON = frozenset({"JSON"})
GOOD = Sample(900, 0.009, JSON)
TRIAL = Trial([GOOD] * 200, [GOOD] * 200, [0.009] * 8, 7.5)
LEFT = ScopeState("all", "", Counts(), (), ErrorBudget(50, 20), {})
SPENT = replace(LEFT, budget=ErrorBudget(50, 51))


@pytest.mark.parametrize(
    ("trial", "of_all", "frozen", "refused"),
    [
        (TRIAL, LEFT, "", []),
        (replace(TRIAL, samples=[GOOD] * 189 + [replace(GOOD, ms=4000)] * 11), LEFT, "", ["p95"]),
        (replace(TRIAL, samples=[GOOD] * 190 + [replace(GOOD, ms=4000)] * 10), LEFT, "", []),
        (replace(TRIAL, samples=[replace(GOOD, cost_usd=0.02)] * 200), LEFT, "", ["cost"]),
        (replace(TRIAL, samples=[replace(GOOD, cost_usd=None)] * 200), LEFT, "", ["cost"]),
        (replace(TRIAL, days=[0.009, 0.02, 0.009]), LEFT, "", ["trial"]),
        (replace(TRIAL, lasted_days=6.5), LEFT, "", ["trial"]),
        (
            replace(TRIAL, samples=[GOOD] * 160 + [Sample(900, 0.009, frozenset())] * 40),
            LEFT,
            "",
            ["answers that are JSON"],
        ),
        (replace(TRIAL, samples=[GOOD] * 199), LEFT, "", ["samples"]),
        (replace(TRIAL, others=[]), LEFT, "", ["form"]),
        (TRIAL, SPENT, "", ["error budget"]),
        (TRIAL, LEFT, "it burns", ["error budget"]),
        (replace(TRIAL, samples=[]), LEFT, "", ["samples", "p95", "cost", "form"]),
    ],
)
def test_each_condition_of_the_gate(trial: Trial, of_all: ScopeState, frozen: str, refused: list[str]) -> None:
    assert [check.name for check in judge(trial, POLICY, of_all, frozen, 200) if not check.holds] == refused


def test_fewer_calls_of_tools_and_more_cut_answers_are_worse_and_more_json_is_not() -> None:
    tools, cut = frozenset({FORMS[1]}), frozenset({FORMS[2]})
    none = Sample(900, 0.009, frozenset())
    others = [replace(none, forms=tools)] * 100 + [none] * 100
    checks = {c.name: c.holds for c in judge(replace(TRIAL, others=others), POLICY, LEFT, "", 200)}
    assert checks["answers that are JSON"] and not checks["answers that are calls of tools"]
    trial = replace(TRIAL, samples=[replace(GOOD, forms=cut)] * 30 + [GOOD] * 170)
    assert [c.name for c in judge(trial, POLICY, LEFT, "", 200) if not c.holds][
        -1
    ] == "answers that are cut off at their limit"


def test_a_policy_without_targets_promotes_nothing() -> None:
    found = judge(TRIAL, SloPolicy(), replace(LEFT, budget=None), "", 200)
    assert [check.name for check in found if not check.holds] == ["error budget", "p95", "cost"]


def result(job_id: str, route: str, text: str, **more: object) -> JobResult:
    attempt = Attempt(execution=1, route=route, tier="hot", outcome="ok", ms=700)
    message = {"content": text, "tool_calls": more.pop("tool_calls", None)}
    return JobResult(
        job_id=job_id, status=JobStatus.DONE, route=route, cost_usd=0.009, trail=[attempt],
        completion={"choices": [{"message": message}]}, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_sample_has_the_time_of_the_call_and_the_form_of_the_answer() -> None:
    assert sample_of(result("1", "r", '{"a": 1}')) == Sample(700, 0.009, JSON)
    assert sample_of(result("1", "r", "[" * 100_000)).forms == frozenset()
    assert sample_of(result("1", "r", "12", truncated=True)).forms == {FORMS[2]}
    assert sample_of(result("1", "r", "", tool_calls=[{"id": "x"}])).forms == {FORMS[1]}


def test_the_command_reads_the_newest_answers_and_the_days_of_the_trial(
    workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    workshop.policy()
    now = int(time.time() * 1000)
    write(client, workshop.url, [Ended(now - d * 86_400_000, route="b/b-1") for d in range(8, 0, -1)])
    producer.enqueue_many([chat(str(n)) for n in range(60)])
    for number, held in enumerate(claim(client, 60)):
        cached = number == 0
        answer = result(held.job_id, "b/b-1" if number % 2 else "a/a-1", '{"n": 1}', cache_hit=cached)
        settle(client, held, Done(answer, keep_seconds=1000))
    trial = gather(producer, [Q], "b/b-1", 25, now)
    assert (len(trial.samples), len(trial.others), len(trial.days)) == (25, 25, 8) and trial.lasted_days >= 7.9
    (Path(workshop.environment["POLICIES_DIR"]) / "slo.yaml").write_text(
        "targets: {success_percent: 50, p95_answer_seconds: 2.5, average_cost_usd: 0.015}\n"
    )
    passed = workshop.run("failover", "slo", "promote", "b/b-1", "--samples", "25")
    assert passed.returncode == 0 and "b/b-1 may take all jobs" in passed.stdout, passed.stdout
    refused = workshop.run("failover", "slo", "promote", "b/b-1")
    assert refused.returncode == 1 and "30 answers of 200 wanted" in refused.stdout
    assert "b/b-1 stays a canary" in refused.stdout
