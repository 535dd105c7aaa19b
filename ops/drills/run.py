"""Runs a scenario step by step and judges it: each line of evidence is measured, compared and kept."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.drills.evidence import CHECKS, Finding, Measured
from ops.drills.scenario import Evidence, Question, Scenario, Step
from ops.drills.stage import Flaws, SimulatedStage, Stage, on_simulator
from producer.errors import FailoverError
from producer.job import LLMJob
from worker.control import pause
from worker.control.pause import EVERYTHING

STEP_SECONDS = 60.0  # for what a step begins with
LOOK_SECONDS = 0.05
LIVE_SECONDS = 1.0  # between two lines of figures while a step lasts
TOKEN = "drill"  # noqa: S105 - of the drill's own web process
_CHILD = """
from ops.local.child_process import end_with_parent
from failover_worker.commands import failover
end_with_parent()
failover()
"""
PROMPT = "Summarize yesterday's call with Acme in three sentences."


@dataclass(frozen=True)
class Answered:
    """What the person answered while a fault was there, after how many seconds, and whether it was right."""

    question: str
    answer: str
    seconds: float
    right: bool


@dataclass
class StepResult:
    """What a step showed. `curve`: (seconds since the drill began, jobs done in this step)."""

    step: Step
    findings: list[Finding] = field(default_factory=list)
    answered: Answered | None = None
    at_seconds: float = 0.0
    curve: list[tuple[float, int]] = field(default_factory=list)
    measured: Measured | None = None


Asker = Callable[[Question], str]


class Drill:
    """One run of a scenario. `say`: gets each line; `ask`: asks the person, None for nobody. `on`: the stage, the simulator if
    none is given."""

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        say: Callable[[str], object],
        ask: Asker | None = None,
        flaws: Flaws | None = None,
        on: contextlib.AbstractContextManager[Stage] | None = None,
    ) -> None:
        self.scenario, self._folder, self._say, self._ask = scenario, folder, say, ask
        self._flaws, self._on = flaws or Flaws(), on
        self._began = time.monotonic()
        self._ids: list[str] = []  # of the last step that handed jobs in
        self._all: list[str] = []
        self._baseline: Measured | None = None

    def run(self) -> list[StepResult]:
        """Every step in order, until the time limit. The faults end with each step, and with the drill, however it ends."""
        steps = [step for step in self.scenario.steps if not step.bypass]
        results: list[StepResult] = []
        with self._on or on_simulator(self._folder / "stage", self._flaws) as stage:
            results += [self._step(stage, step) for step in steps]
        for step in self.scenario.steps:
            if step.bypass:
                self._all = []
                with on_simulator(self._folder / "bypass", self._flaws, bypass=True) as stage:
                    results.append(self._step(stage, step))
        return results

    def _step(self, stage: Stage, step: Step) -> StepResult:
        found = StepResult(step, at_seconds=time.monotonic() - self._began)
        self._say(f"{found.at_seconds:5.1f} s  {step.title}")
        if found.at_seconds > self.scenario.minutes * 60:
            found.findings.append(
                Finding("time limit", False, "the drill took too long", f"{self.scenario.minutes:g} minutes")
            )
            return found
        before = self._before(stage, step)
        try:
            found.answered = self._answered(step) if step.ask and self._ask else None
            measured = self._measure(stage, step, before, found)
            for evidence, limit in step.expect.items():
                found.findings.append(CHECKS[evidence](stage, measured, limit))
        finally:
            stage.inject({})
        found.measured = measured
        if step.baseline:
            self._baseline = measured
        for finding in found.findings:
            self._say(f"         {'ok  ' if finding.passed else 'FAIL'} {finding}")
        return found

    def _before(self, stage: Stage, step: Step) -> Measured:
        """Set the faults and hand the jobs in."""
        stage.inject(step.faults)
        measured = Measured(step, self._ids, began=time.monotonic(), told_before=len(stage.messages), all_ids=self._all,
                            answered_before=stage.answered(), baseline=self._baseline)  # fmt: skip
        if step.resume:
            pause.resume(stage.client, EVERYTHING, who="drill", again_at=95)
        if step.rollback:
            stage.roll_back((lambda: self._enqueue(stage, 1)) if step.jobs else None)
        if step.jobs:
            self._ids = measured.ids = self._enqueue(stage, step.jobs)
        if step.budget_percent is not None:
            self._report_budget(stage, step.budget_percent, measured)
        return measured

    def _enqueue(self, stage: Stage, count: int) -> list[str]:
        jobs = [
            LLMJob.parse({"tenant_id": stage.tenant, "feature": stage.feature, "user_id": f"{len(self._all)}",
                          "body": {"messages": [{"role": "user", "content": f"{PROMPT} ({number})"}], "max_tokens": 100}})
            for number in range(len(self._all), len(self._all) + count)
        ]  # fmt: skip
        ids = [receipt.job_id for receipt in stage.producer.enqueue_many(jobs)]
        self._all.extend(ids)
        return ids

    def _report_budget(self, stage: Stage, percent: float, measured: Measured) -> None:
        """Tell a real web process what billing would, while jobs run; then hand further jobs in."""
        _until(lambda: len(measured.running(stage)) == len(measured.ids), STEP_SECONDS)
        assert isinstance(stage, SimulatedStage)  # noqa: S101 - no other drill has such a step
        with _serving(stage, self._folder) as web:
            measured.began = time.monotonic()
            _sent(web, "/budget/webhook", {"provider": "gemini", "percentUsed": percent})
            _until(lambda: bool(pause.holding(stage.client, stage.producer.queue)), STEP_SECONDS)
            measured.paused_after = time.monotonic() - measured.began
            measured.late_ids = self._enqueue(stage, 4)

    def _answered(self, step: Step) -> Answered:
        assert step.ask is not None and self._ask is not None  # noqa: S101 - the caller has looked
        began = time.monotonic()
        answer = self._ask(step.ask).strip().lower()
        right = answer in step.ask.answers
        return Answered(step.ask.text, answer, time.monotonic() - began, right)

    def _measure(self, stage: Stage, step: Step, measured: Measured, found: StepResult) -> Measured:
        """Wait until the evidence is there or its time is over."""
        settled = _settled(stage, step, measured)
        give_up = time.monotonic() + step.seconds
        done, told_at = -1, time.monotonic()
        while time.monotonic() < give_up:
            if measured.ids and time.monotonic() - told_at > LIVE_SECONDS:
                told_at = time.monotonic()
                self._say(f"         {told_at - self._began:5.1f} s  {_so_far(stage, measured)}")
            if (now := measured.done_count(stage)) != done:
                done = now
                found.curve.append((time.monotonic() - self._began, done))
            if settled():
                break
            time.sleep(LOOK_SECONDS)
        measured.results = stage.results(measured.ids)
        return measured


def _so_far(stage: Stage, measured: Measured) -> str:
    """The figures of now, in one line."""
    measured.results = stage.results(measured.ids)
    figures = [f"{len(measured.done)} of {len(measured.ids)} done"]
    if measured.p95 is not None:
        ended = sum(each.status.ended for each in measured.results)
        figures += [f"p95 {measured.p95:.1f} s", f"SR {100 * len(measured.done) / ended:.0f}%"]
        figures += [f"${sum(each.cost_usd or 0 for each in measured.done):.4f}"]
    by_route = Counter(each.route for each in measured.done if each.route)
    return ", ".join([*figures, *(f"{route} {count}" for route, count in by_route.items())])


def _settled(stage: Stage, step: Step, measured: Measured) -> Callable[[], bool]:
    """Whether everything that the step expects can be judged."""

    def settled() -> bool:
        measured.look(stage)
        wanted = step.expect
        if Evidence.COLD_HOLDS in wanted:
            ready = measured.cold(stage)
        elif Evidence.NEW_WORK_WAITS in wanted or Evidence.HANDOVER in wanted:
            ready = all(stage.producer.ended(measured.ids))
        else:
            ready = all(stage.producer.ended(measured.all_ids or measured.ids))
        if Evidence.BREAKERS_CLOSED in wanted:
            ready = ready and not measured.closed_routes(stage)
        if Evidence.TOLD_SECONDS in wanted or Evidence.HANDOVER in wanted:
            ready = ready and (measured.told is not None)
        return ready

    return settled


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < give_up:
        time.sleep(LOOK_SECONDS)
    return held


@contextlib.contextmanager
def _serving(stage: SimulatedStage, folder: Path) -> Iterator[str]:
    """The URL of a `failover serve` of the drill, in a process of its own. Raises FailoverError if it does not come up."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-P", "-c", _CHILD, "serve", "--port", str(port)]
    environment = {**stage.environment, "FAILOVER_API_TOKEN": TOKEN}
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        web = f"http://127.0.0.1:{port}"
        if not _until(lambda: _serves(web), STEP_SECONDS):
            raise FailoverError(f"the web process of the drill did not start: {folder / 'serve.log'} says why")
        yield web
    finally:
        process.terminate()
        process.wait(30)


def _serves(web: str) -> bool:
    with contextlib.suppress(OSError):
        return _sent(web, "/healthz") == 200
    return False


def _sent(web: str, path: str, body: dict[str, Any] | None = None) -> int:
    """The status of a request to the drill's own web process. Raises OSError for none, and for one that is an error."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(web + path, data, headers)  # noqa: S310 - our own process
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return int(answer.status)


def curves(results: list[StepResult]) -> Iterator[tuple[float, int]]:
    """(seconds, jobs done in all) over the whole drill."""
    total = 0
    for result in results:
        last = 0
        for at, done in result.curve:
            yield at, total + done
            last = max(last, done)
        total += last
