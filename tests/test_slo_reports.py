"""The documents for clients: one-pager, clause and monthly report, with real figures and nothing of other clients."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from importlib.util import find_spec

import pytest
import redis

from ops.reports.slo.month import bounds
from producer.errors import UsageError
from tests.support.past import Ended, write
from tests.support.workshop import Workshop
from tests.test_slo_commands import promise
from worker.notify.condition import Condition
from worker.notify.incidents import Incidents
from worker.notify.kinds import Kind

NOW = datetime.now(UTC)
MONTH = f"{NOW:%Y-%m}"
EVIL = "<script>alert(1)</script>|x [a](javascript:1)"
POLICY = """
targets: {success_percent: 99.5, p95_answer_seconds: 2.5, average_cost_usd: 0.015}
tenants: {acme: {success_percent: 99.9}}
maintenance: {minutes: 45, per_quarter: 3}
client:
  service: Notes AI
  contact: status.example.com
  credit_percent: 10
  trial_days: 9
  changelog: [{date: 2026-02-01, what: "99.0% -> 99.5%"}, {date: 2026-03-05, what: Claude is the primary}]
  drills: [{date: %s-01, what: "TTR 9 s"}]
"""


@pytest.fixture
def past(workshop: Workshop, client: redis.Redis) -> Workshop:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    promise(workshop, POLICY.replace("%s", MONTH))
    now = int(time.time() * 1000)
    names = ("acme", "globex", EVIL)
    jobs = [
        Ended(
            now - 1500 + n,
            tenant=names[n % 3],
            feature="hidden feature" if n % 3 == 1 else "faq",
            died="expired" if n in (4, 7) else "",
            flags=("saved",) if n % 10 == 0 else (),
            micros=9_000,
        )
        for n in range(1200)
    ]
    write(client, workshop.url, jobs)
    incidents = Incidents(client)
    for condition in (
        Condition(Kind.ROUTE_OPEN, "anthropic", tenants={"globex": 3}),
        Condition(Kind.PAUSED, "tenant globex", title="globex is paused"),
        Condition(Kind.SLO_SUCCESS, "tenant globex"),
        Condition(Kind.SLO_SUCCESS, "tenant acme"),
    ):
        incidents.open(condition, now - 60_000, "it began")
    return workshop


def test_the_one_pager_has_a_figure_in_place_of_every_bracket(past: Workshop) -> None:
    text = past.run("failover", "slo", "page").stdout
    assert not re.search(r"\[[A-Z_%]+\]", text)
    for line in (
        "# Notes AI — Reliability SLO (client-facing)",
        "Last updated: 2026-03-05",
        "- Covered features: faq, hidden feature.",
        "- Traffic profile: 40 requests a day in the last 30 days; at most 1,200 in one hour.",
        "- Success rate: ≥ 99.5%. Last 30 days: 99.833%.",
        "- P95 to the answer: ≤ 2.5 s. Last 30 days: 802 ms.",
        "- Average cost: ≤ $0.015. Last 30 days: $0.008985.",
        "- Budget = 0.5% of the requests over 30 days.",
        "- With the 1,200 requests of the last 30 days: 6 may fail, 2 did.",
        "- Scheduled maintenance windows (≤ 45 minutes, 3 per quarter) announced 48 hours in advance.",
        "within its target for 9 days",
        "- Incidents: status.example.com. Review: monthly.",
        "- 2026-03-05: Claude is the primary\n- 2026-02-01: 99.0% -\\> 99.5%",
    ):
        assert line in text, line


def test_the_one_pager_and_the_clause_of_a_tenant_have_its_own_targets_and_nobody_elses_figures(past: Workshop) -> None:
    page = past.run("failover", "slo", "page", "--tenant", "acme").stdout
    clause = past.run("failover", "slo", "sow", "--tenant", "acme").stdout
    assert "- Success rate: ≥ 99.9%. Last 30 days: 100%." in page and "With the 400 requests" in page
    assert "Success rate ≥ 99.9%; p95 end-to-end latency ≤ 2.5 seconds" in clause
    assert "a service credit of 10% of that month's AI usage fees" in clause
    for text in (page, clause):
        assert not re.search(r"\[[A-Z_%]+\]", text)
        assert "globex" not in text and "hidden" not in text and "alert" not in text


def test_a_document_without_a_target_or_credit_promises_none(past: Workshop) -> None:
    promise(past, "targets: {success_percent: 99.5}\n")
    ended = past.run("failover", "slo", "page")
    assert ended.returncode == 2 and "policies/slo.yaml: targets.p95_answer_seconds: is not set" in ended.stderr
    promise(past, "targets: {success_percent: 99.5, p95_answer_seconds: 2.5, average_cost_usd: 0.015}\n")
    assert "Credits" not in past.run("failover", "slo", "sow").stdout


def test_the_month_has_its_figures_outages_alerts_and_drills(past: Workshop) -> None:
    text = past.run("failover", "slo", "report", "--month", MONTH).stdout
    for line in (
        f"# Notes AI: reliability report {NOW:%B %Y}",
        "The month is not over: these are its figures so far.",
        "- 1,200 requests, 2 failed, of them 0 answered late.",
        "- Error budget: 6.0 failures allowed, 2 spent, 4.0 left.",
        "| success rate | at least 99.5% | 99.833% | met |",
        "| saved: answered by another route than the first | 120 |",
        "AI provider is down: anthropic",
        f"- {MONTH}-01: TTR 9 s",
    ):
        assert line in text, line
    assert "globex" not in text, "the incident of a paused client is no outage of a provider"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened, self.closed, self.words = Counter[str](), Counter[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.opened[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self.closed[tag] += 1

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_of_a_tenant_has_nothing_of_others_and_its_name_is_text(past: Workshop) -> None:
    for tenant, others in (("acme", ("globex", "alert(1)")), (EVIL, ("acme", "globex"))):
        file = past.folder / "report.html"
        ended = past.run("failover", "slo", "report", "--month", MONTH, "--tenant", tenant, "-o", str(file))
        assert ended.returncode == 0, ended.stderr
        text = file.read_text()
        tags = Tags(text)
        assert (
            "script" not in tags.opened
            and "a" not in tags.opened
            and "http" not in text.replace("http://www.w3.org", "")
        )
        assert all(tags.opened[tag] == tags.closed[tag] for tag in ("h2", "table", "tr", "td", "p", "body"))
        words = "".join(tags.words)
        assert f"for {tenant}" in words and "400 requests" in words
        assert not any(other in text for other in (*others, "hidden feature", "jobs saved"))
        assert ("svg" in tags.opened) == (find_spec("leather") is not None)


def test_markup_in_a_name_is_text_in_markdown_too(past: Workshop) -> None:
    text = past.run("failover", "slo", "report", "--month", MONTH, "--tenant", EVIL).stdout
    assert r"\<script\>alert(1)\</script\>\|x \[a\](javascript:1)" in text


def test_the_review_has_its_four_questions_with_evidence(past: Workshop, client: redis.Redis) -> None:
    now = int(time.time() * 1000)
    spiky = [Ended(now, route="b/b-1", failed=(("a/a-1", "timeout"),), flags=("saved",)) for _ in range(100)]
    write(client, past.url, spiky)
    incidents = Incidents(client)
    paused = Condition(Kind.BUDGET, lines=("everything, by budget: the total has used 81% of its budget",))
    incidents.open(paused, now - 7_200_000, "it began")
    (outage,) = [each for each in incidents.since(0) if each.kind is Kind.ROUTE_OPEN]
    incidents.close(outage, now - 1000, "over")
    text = past.run("failover", "review-month", "--month", MONTH).stdout
    for line in (
        "220 jobs answered by another route than the first, of 1,298 answered jobs.",
        "Yes: without failover these jobs had waited or died.",
        "Spent: $11.28; there is no cap for all jobs.",
        "Paused by the budget",
        "success rate: 99.846%, target at least 99.5%. Met: leave it.",
        "p95 to the answer: 802 ms, target at most 2.5 s. Far better than promised",
        "| a/a-1 | 1,298 | 100 (7.7%) | timeout 100 |",
        "fails often: another model, or later in the map",
        "UTC: anthropic down",
    ):
        assert line in text, line
    later = past.run("failover", "review-month", "--month", MONTH, "-o", str(past.folder / "review.md"))
    assert later.returncode == 0 and "Review of" in (past.folder / "review.md").read_text()


def test_a_wrong_month_or_file_is_refused_with_the_fix(past: Workshop) -> None:
    for month, why in (
        ("2026-13", "write it as in"),
        ("November", "write it as in"),
        ("2999-01", "has not begun yet"),
        ("2020-01", "goes back 400 days"),
        ("0000-01", "goes back 400 days"),
    ):
        with pytest.raises(UsageError, match=why):
            bounds(month, NOW)
    ended = past.run("failover", "slo", "report", "--month", MONTH, "-o", "report.pdf")
    assert ended.returncode == 2 and "ends with .html or .md" in ended.stderr and "Traceback" not in ended.stderr


def test_a_month_begins_and_ends_in_utc() -> None:
    begin, end = bounds("2026-02", datetime(2026, 3, 1, tzinfo=UTC))
    assert (end - begin, end) == (timedelta(days=28), datetime(2026, 3, 1, tzinfo=UTC))
