"""`failover slo ...` as a user types it, on a past with a known truth."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import redis

from tests.support.past import Ended, write
from tests.support.workshop import Workshop

HOUR_MS = 3_600_000
TARGETS = "targets: {success_percent: 99.5, p95_answer_seconds: 2.5, average_cost_usd: 0.015}\n"


def promise(workshop: Workshop, text: str = TARGETS) -> None:
    (Path(workshop.environment["POLICIES_DIR"]) / "slo.yaml").write_text(text)


def jobs(now_ms: int) -> list[Ended]:
    """1,000 requests in the last hours: 8 failed, all of globex; 3 refused, which count for nothing."""
    return [
        Ended(
            now_ms - 2 * HOUR_MS + n * 1000,
            tenant="globex" if n % 4 == 0 else "acme",
            feature="essays" if n % 2 else "faq",
            died="exhausted" if n % 4 == 0 and n < 24 else "refused" if n in (1, 3, 5) else "",
            flags=("late",) if n in (400, 500) else (),
            micros=10_000,
        )
        for n in range(1003)
    ]


@pytest.fixture
def past(workshop: Workshop, client: redis.Redis) -> Workshop:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    promise(workshop)
    write(client, workshop.url, jobs(int(time.time() * 1000)))
    return workshop


def test_show_has_each_indicator_its_target_the_budget_and_the_burn(past: Workshop) -> None:
    text = past.run("failover", "slo", "show").stdout
    assert "all jobs: 1,000 requests, 8 failed (2 late)" in text
    for row in (
        "success rate 99.2% at least 99.5% missed",
        "p95 to the answer 802 ms at most 2.5 s met",
        "p95 to the first token no route streams -",
        "average cost $0.009940 at most $0.015 met",
        "error budget 5.0 failures allowed, 8 spent, -3.0 left (-60%)",
    ):
        assert row in " ".join(text.split()), row
    assert "whole window 1.6, 1 hour -" in text
    assert "globex" in text and "essays" in text


def test_show_of_one_feature_or_tenant_has_its_figures_alone(past: Workshop) -> None:
    text = past.run("failover", "slo", "show", "--tenant", "acme", "--since", "4h").stdout
    assert "tenant acme: 749 requests, 0 failed" in text and "globex" not in text
    data = json.loads(past.run("failover", "slo", "show", "--feature", "faq", "--json").stdout)
    assert (data["of"], data["name"], data["requests"], data["failures"]) == ("feature", "faq", 502, 8)
    assert data["indicators"]["success_percent"]["met"] is False
    both = past.run("failover", "slo", "show", "--feature", "faq", "--tenant", "acme")
    assert both.returncode == 2 and "counted apart" in both.stderr


def test_check_fails_for_a_missed_target_and_names_it(past: Workshop) -> None:
    ended = past.run("failover", "slo", "check")
    assert ended.returncode == 1
    assert "tenant globex: success rate 96.812%, at least 99.5%" in ended.stdout and "acme" not in ended.stdout
    promise(past, "targets: {success_percent: 90}\n")
    ended = past.run("failover", "slo", "check")
    assert "every target is met: 1,000 requests" in ended.stdout
    promise(past, "version: 1\n")
    ended = past.run("failover", "slo", "check")
    assert ended.returncode == 2 and "nothing is promised: set targets in policies/slo.yaml" in ended.stderr
    assert "nothing is promised" in past.run("failover", "slo", "show").stdout


def test_the_doctor_names_the_targets(past: Workshop) -> None:
    promise(past, TARGETS + "tenants: {acme: {success_percent: 99.9}}\n")
    text = " ".join(past.run("failover", "doctor").stdout.split())
    assert "success_percent 99.5, p95_answer_seconds 2.5, average_cost_usd 0.015" in text
    assert "targets of their own: 1 features and tenants" in text


def test_a_wrong_policy_names_its_line(past: Workshop) -> None:
    promise(past, "targets:\n  success_percent: 99.5%\n")
    ended = past.run("failover", "slo", "show")
    assert ended.returncode == 2 and "slo.yaml:2: targets.success_percent" in ended.stderr
    assert "Traceback" not in ended.stderr
