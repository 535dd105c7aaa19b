"""The report of a drill: the verdict line by line, the closeout in three figures, signed with a hash; files and their list."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ops.drills.run import StepResult, curves
from ops.drills.scenario import Scenario
from ops.reports.slo.month import Plot, Report, Section
from ops.reports.slo.render import as_html, as_markdown
from worker.control.pause import utc

FOLDER = Path(".failover/drills")


@dataclass(frozen=True)
class DrillReport:
    """A drill that was held. `closeout`: TTR, p95 and SR of the failure. `sha256`: of everything else."""

    name: str
    title: str
    at: float
    who: str
    unattended: bool
    passed: bool
    seconds: float
    steps: list[dict[str, Any]]
    closeout: str
    follow_ups: list[str]
    curve: list[tuple[float, int]]
    sha256: str = ""

    @property
    def id(self) -> str:
        return f"{utc(self.at)[:16].replace(' ', 'T').replace(':', '-')}-{self.name}"


def report_of(
    scenario: Scenario, results: Sequence[StepResult], *, at: float, who: str, unattended: bool, seconds: float
) -> DrillReport:
    """The signed report."""
    steps = [
        {
            "title": result.step.title,
            "at_seconds": round(result.at_seconds, 1),
            "findings": [asdict(finding) for finding in result.findings],
            "answered": asdict(result.answered) if result.answered else None,
        }
        for result in results
    ]
    missed = [finding for result in results for finding in result.findings if not finding.passed]
    report = DrillReport(
        scenario.name, scenario.title, at, who, unattended, not missed, round(seconds, 1), steps, _closeout(results),
        [*(f"{each.name}: {each.measured}, expected {each.expected}" for each in missed), *scenario.follow_ups],
        [(round(second, 2), done) for second, done in curves(list(results))],
    )  # fmt: skip
    return replace(report, sha256=hash_of(asdict(report)))


def hash_of(content: dict[str, Any]) -> str:
    """The SHA-256 of a report without its own hash."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    return sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _closeout(results: Sequence[StepResult]) -> str:
    """`TTR=0.5 s, p95=0.7 s, SR=100.0%` of the step whose failover was timed; of the Lisbon Test the blocked domains."""
    faulted = [result.measured for result in results if result.step.faults and result.measured is not None]
    for measured in faulted:
        if measured.p95 is not None and measured.first_after is not None:
            return (
                f"TTR={measured.first_after:.1f} s, p95={measured.p95:.1f} s, SR={measured.success_percent or 0:.1f}%"
            )
    return "TTR=none, p95=none, SR=0.0%"


def verdict(report: DrillReport) -> str:
    missed = sum(not finding["passed"] for step in report.steps for finding in step["findings"])
    return "passed" if report.passed else f"FAILED: {missed} of the expected did not come"


def _document(report: DrillReport) -> Report:
    how = ", unattended" if report.unattended else ""
    head = (
        f"{utc(report.at)}, by {report.who}{how}: {verdict(report)} in {report.seconds:g} s",
        report.closeout,
        f"SHA-256 of the JSON report: {report.sha256}",
    )
    sections = [_section(step) for step in report.steps]
    if report.follow_ups:
        sections.append(Section("Follow-ups", tuple(f"[ ] {each}" for each in report.follow_ups)))
    curve = tuple((second, float(done)) for second, done in report.curve)
    plot = Plot("Jobs done", "jobs by second", curve, (0, math.ceil(report.seconds)), "so many jobs")
    sections.append(Section("Jobs done over the drill", plots=(plot,)))
    return Report(report.title, head, tuple(sections))


def _section(step: dict[str, Any]) -> Section:
    rows = tuple(
        (each["name"], each["measured"], each["expected"], "met" if each["passed"] else "missed")
        for each in step["findings"]
    )
    answered = step["answered"]
    lines: tuple[str, ...] = ()
    if answered:
        right = "right" if answered["right"] else "wrong"
        lines = (
            f"Asked: {answered['question']} Answer: {answered['answer']} ({right}, after {answered['seconds']:.0f} s)",
        )
    return Section(f"{step['at_seconds']} s: {step['title']}", lines, ("evidence", "measured", "expected", ""), rows)


def written(report: DrillReport, folder: Path) -> list[Path]:
    """Write the report as JSON, Markdown and HTML. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    document = _document(report)
    texts = {"json": json.dumps(asdict(report), indent=2), "md": as_markdown(document), "html": as_html(document)}
    paths = []
    for suffix, text in texts.items():
        path = folder / f"{report.id}.{suffix}"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def held(folder: Path) -> Iterator[tuple[DrillReport, bool]]:
    """(each drill of the folder, whether its report is as it was signed), the newest first."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            yield DrillReport(**content), content.get("sha256") == hash_of(content)
        except (OSError, ValueError, TypeError):
            continue  # a file of somebody else
