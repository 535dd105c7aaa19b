"""The dashboards and alert rules in deploy/: every metric, label and value that an expression names is one that we send."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from producer import Producer
from tests.support.collector import Collector, collecting, facts
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.web import served
from tests.support.workshop import Workshop

DEPLOY = Path(__file__).parent.parent / "deploy"
Series = dict[str, list[dict[str, str]]]  # the labels of each sample, by the name of its metric


def rules() -> list[dict[str, str]]:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard(name: str) -> list[str]:
    """Its expressions, with Grafana's variables replaced as Grafana does when all is chosen."""
    whole = json.loads((DEPLOY / f"grafana/{name}.json").read_text())
    told = [target["expr"] for panel in whole["panels"] for target in panel["targets"]]
    told += [
        re.sub(r"label_values\((\w+), (\w+)\)", r"count by (\2) (\1)", each["definition"])
        for each in whole["templating"]["list"][1:]
    ]
    return [re.sub(r"\$(queue|route|model|provider)", ".*", each).replace("$__rate_interval", "5m") for each in told]


def wrong(expression: str, series: Series) -> list[str]:
    """What the expression names and nobody sends."""
    found: list[str] = []
    names: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            samples = series.get(node.name or "", [])
            names.update(*(sample for sample in samples))
            found.extend([] if samples else [str(node.name)])
            for matcher in node.matchers.matchers if samples else ():
                values = {sample.get(matcher.name) for sample in samples} - {None}
                known = not values or matcher.op != promql_parser.MatchOp.Equal or matcher.value in values
                found.extend([] if values and known else [f"{node.name}: {matcher.name}={matcher.value}"])
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            by.update(node.modifier.labels)

    by: set[str] = set()
    promql_parser.walk(promql_parser.parse(expression), visit)
    return found + [f"by {label}" for label in sorted(by - names)]


@pytest.fixture
def series(workshop: Workshop, producer: Producer) -> Series:
    """All that /metrics can tell: jobs in every state, routes, a pause, budgets, money, requests."""
    workshop.routes(hot=[{"upstream": "a", "price": {"input": 1, "output": 2}}])
    workshop.policy()
    caps = "version: 1\ntotal: {soft_usd: 0.000005}"
    (Path(workshop.environment["POLICIES_DIR"]) / "budgets.yaml").write_text(caps)
    workshop.worker()
    producer.wait(producer.enqueue(chat(tenant_id="acme", feature="faq")), 30)
    with served(workshop) as web:
        web.post("/budget/webhook", json={"provider": "gemini", "percentUsed": 85})
        web.post("/jobs", json={"body": {"messages": []}})
        text = until(lambda: (t := metrics(web)) and "failover_budget_step_percent{" in t and t, "all is told")
    found: Series = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name].append(sample.labels)
    return found


def metrics(web: httpx.Client) -> str:
    text: str = web.get("/metrics").text
    return text


def test_what_alerts_and_dashboard_ask_for_is_in_metrics(series: Series) -> None:
    asked = {rule["alert"]: rule["expr"] for rule in rules()} | {each: each for each in dashboard("failover")}
    assert len(asked) > 35
    assert {name: missing for name, expr in asked.items() if (missing := wrong(expr, series))} == {}


def test_every_metric_of_ours_is_on_the_dashboard(series: Series) -> None:
    shown = " ".join(dashboard("failover"))
    ours = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in series if name.startswith("failover_")}
    assert {name for name in ours if name not in shown} == set()


@pytest.fixture
def sent(workshop: Workshop, producer: Producer) -> Iterator[Collector]:
    """The metrics of a worker after a call that failed and one that was streamed."""
    workshop.routes(hot=[{"upstream": "a", "streamTimeoutSeconds": 20}])
    workshop.policy()
    workshop.providers.behave("a", status=500, times=1)
    with collecting() as collector:
        workshop.worker(**collector.environment, OTEL_METRIC_EXPORT_INTERVAL="50")
        producer.wait(producer.enqueue(chat()), 30)
        until(lambda: "gen_ai.client.inference.time_to_first_chunk" in collector.metrics(), "they are sent")
        yield collector


def as_prometheus(collector: Collector) -> Series:
    """The names and labels that Prometheus gives to metrics of OTLP: its unit and kind become part of a name."""
    found: Series = defaultdict(list)
    for metric in collector.metrics().values():
        unit = {"s": "_seconds"}.get(metric.unit, "")
        name = metric.name.replace(".", "_") + unit
        points = metric.histogram.data_points or metric.sum.data_points
        kinds = ("_bucket", "_count", "_sum") if metric.WhichOneof("data") == "histogram" else ("_total",)
        for point in points:
            labels = {key.replace(".", "_"): str(value) for key, value in facts(point).items()} | {"le": "1"}
            for kind in kinds:
                found[name + kind].append(labels)
    return found


def test_what_the_dashboard_of_calls_asks_for_is_sent(sent: Collector) -> None:
    known = as_prometheus(sent)
    asked = dashboard("failover-calls")
    assert len(asked) >= 11
    assert {expr: missing for expr in asked if (missing := wrong(expr, known))} == {}


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("sum by (queue) (jobs)", []),
        ("sum by (route) (jobs)", ["by route"]),
        ("rate(nobody[5m])", ["nobody"]),
        ('jobs{state="dead"}', []),
        ('jobs{state="buried"}', ["jobs: state=buried"]),
        ('jobs{tenant=~".*"}', ["jobs: tenant=.*"]),
    ],
)
def test_a_wrong_name_is_found(expression: str, told: list[str]) -> None:
    assert wrong(expression, {"jobs": [{"queue": "q", "state": "dead"}]}) == told


def test_every_rule_says_whom_it_wakes_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]  # type: ignore[index]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
    assert len({rule["alert"] for rule in rules()}) == len(rules())
