"""The drills pass on the simulator, fail when a fault of ours is planted and name it, leave signed reports and no faults."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from ops.drills.record import LISTED, record, recorded
from ops.drills.report import DrillReport, hash_of, report_of, written
from ops.drills.run import Drill, StepResult
from ops.drills.scenario import Question, Scenario, load_scenario
from ops.drills.stage import Flaws
from producer.errors import UsageError
from tests.support.polling import until
from worker.breakers.local import Rules

pytestmark = pytest.mark.server


def hold(name: str, folder: Path, flaws: Flaws | None = None) -> list[StepResult]:
    return Drill(load_scenario(name), folder, lambda _: None, flaws=flaws).run()


def missed(results: list[StepResult]) -> set[str]:
    return {finding.name for result in results for finding in result.findings if not finding.passed}


def steps(scenario: str, *titles: str) -> Scenario:
    """Only these steps of a drill."""
    whole = load_scenario(scenario)
    return whole.model_copy(update={"steps": tuple(step for step in whole.steps if step.title.startswith(titles))})


@pytest.mark.parametrize("name", ["lisbon", "failover_a", "failover_b", "failover_c"])
def test_a_drill_passes_in_time(name: str, tmp_path: Path) -> None:
    results = hold(name, tmp_path)
    assert missed(results) == set()
    assert results[-1].at_seconds < load_scenario(name).minutes * 60


@pytest.mark.parametrize(
    ("name", "titles", "flaws", "names"),
    [
        ("lisbon", ("Before", "The gateway"), Flaws(mute=True), {"message of the kind cold"}),
        ("lisbon", ("Before", "The gateway"), Flaws(rules=Rules(failures=10**6)), {"breakers"}),
        ("failover_c", ("Baselines", "The failure"), Flaws(first_token_seconds=60), {"time to the first answer (TTR)"}),
        ("failover_a", ("Baselines", "The failure"), Flaws(warm=False), {"success rate (SR)"}),
        ("failover_b", ("Baselines", "The failure"), Flaws(warm=False), {"success rate (SR)"}),
    ],
)
def test_a_planted_fault_fails_the_drill_and_is_named(
    name: str, titles: tuple[str, ...], flaws: Flaws, names: set[str], tmp_path: Path
) -> None:
    scenario = steps(name, *titles)
    fast = tuple(step.model_copy(update={"seconds": 12}) for step in scenario.steps)
    results = Drill(scenario.model_copy(update={"steps": fast}), tmp_path, lambda _: None, flaws=flaws).run()
    assert names <= missed(results)


def test_the_person_is_asked_and_timed(tmp_path: Path) -> None:
    asked: list[Question] = []

    def answer(question: Question) -> str:
        asked.append(question)
        return "Warm" if "tier" in question.text else "gone"

    results = Drill(steps("lisbon", "Before", "The hot", "The gateway"), tmp_path, lambda _: None, answer).run()
    told = [result.answered for result in results if result.answered]
    assert [(each.answer, each.right) for each in told] == [("warm", True), ("gone", False)]
    assert len(asked) == 2


def report(tmp_path: Path) -> DrillReport:
    results = Drill(steps("failover_a", "Baselines"), tmp_path, lambda _: None).run()
    return report_of(load_scenario("failover_a"), results, at=1_800_000_000.0, who="kira", unattended=True, seconds=3.0)


def test_a_report_is_signed_written_and_listed(tmp_path: Path, client: redis.Redis) -> None:
    made = report(tmp_path)
    paths = written(made, tmp_path / "reports")
    assert [path.suffix for path in paths] == [".json", ".md", ".html"]
    content = json.loads(paths[0].read_text())
    assert content["sha256"] == hash_of(content)
    assert "jobs done" in paths[1].read_text()
    assert made.sha256 in paths[2].read_text()
    content["passed"] = False
    assert content["sha256"] != hash_of(content)
    for _ in range(LISTED + 5):
        record(client, made)
    assert len(recorded(client)) == LISTED
    assert recorded(client)[0]["title"].startswith("Failover drill, option A")


def test_an_unknown_drill_is_told() -> None:
    with pytest.raises(UsageError, match=r"known drills: failover_a, .*, feature_c, lisbon"):
        load_scenario("moon")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_drill_that_is_stopped_leaves_no_process_and_no_fault(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "failover_worker", "drill", "lisbon"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, process_group=0)
    until(lambda: "blocked" in (tmp_path / "log").read_text(), "the first fault is there", 40)
    process.send_signal(number)
    process.wait(40)

    def left() -> list[str]:
        """What works in the folder: its command line may name a socket elsewhere."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "cwd").resolve().is_relative_to(tmp_path):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    until(lambda: left() == [], "nothing of it runs any more", 60)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_the_command_leaves_a_report_and_lists_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "failover_worker", "drill"]
    done = subprocess.run(
        [*command, "failover", "--option", "A", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True
    assert "TTR=" in json.loads(done.stdout)["closeout"]
    listed = subprocess.run([*command, "list"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "failover_a  passed" in listed
    path = next((tmp_path / ".failover" / "drills").glob("*.json"))
    path.write_text(path.read_text().replace('"passed": true', '"passed": false', 1))
    listed = subprocess.run([*command, "list"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "the report was changed after it was signed" in listed
