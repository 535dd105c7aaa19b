"""With thousands of tenants, people and metrics get the largest, those with a cap, and the rest as one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import redis
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, generate_latest

from ops.commands import budget
from ops.web.health import _Everything
from producer import keyspace
from producer.scripts import ask
from worker.money import budget_state
from worker.money.caps import Budgets, Cap
from worker.reports import statement

TENANTS = 300


@pytest.fixture
def spent(client: redis.Redis) -> str:
    """A month in which each of the TENANTS has spent another amount, the least of all with a cap of its own; the month."""
    month = budget_state.month_of(datetime.now(UTC))
    sums = {f"spent:tenant:t{number:03}": 1_000_000 + number for number in range(TENANTS)}
    sums |= {"since": 1, "spent:total": sum(sums.values())}
    ask(client, [("HSET", keyspace.SPENT + month, *(word for pair in sums.items() for word in pair))])
    statement.set_cap(client, "tenant:t000", Cap(hard_usd=5), month, "sam")
    return month


def test_the_largest_and_the_capped_are_listed_and_nothing_is_missing_from_the_sum(
    client: redis.Redis, spent: str
) -> None:
    standing = budget_state.standing(client, spent)
    lines = statement.balances(statement.sums(client, spent), Budgets(), standing, {})
    shown, rest = statement.shortened(lines, standing.caps)
    largest = [f"tenant:t{number}" for number in range(TENANTS - statement.LISTED, TENANTS)]
    assert [line.scope for line in shown] == ["total", "tenant:t000", *largest]
    assert set(rest) == {"tenant"}
    count, together = rest["tenant"]
    assert count == TENANTS - statement.LISTED - 1
    assert sum(line.spent_usd for line in shown[1:]) + together.spent_usd == pytest.approx(shown[0].spent_usd)


def test_many_capped_scopes_are_bounded_too() -> None:
    sums = {f"tenant:t{number}": statement.Sums(spent=number) for number in range(1000)}
    standing = budget_state.Standing({scope: Cap(hard_usd=1) for scope in sums}, {})
    shown, _ = statement.shortened(statement.balances(sums, Budgets(), standing, {}), standing.caps)
    assert len(shown) == statement.LISTED_CAPPED + 1
    assert shown[-1].scope == "tenant:t999"


def test_metrics_and_budget_show_are_bounded(client: redis.Redis, spent: str, url: str) -> None:
    registry = CollectorRegistry()
    registry.register(_Everything(client, "ai-tasks"))
    metrics = generate_latest(registry).decode()
    assert 'scope="tenant:t000"' in metrics
    assert 'failover_spent_usd{scope="rest:tenant",state="spent"}' in metrics
    assert len([line for line in metrics.splitlines() if "tenant:t" in line]) <= 3 * (statement.LISTED + 1)

    def shown(*options: str) -> list[str]:
        done = CliRunner().invoke(budget.group, ["show", *options], obj={"REDIS_URL": url})
        assert done.exit_code == 0, done.output
        return done.output.splitlines()

    assert "and 279 more tenants, $279.04 spent; --all lists them" in shown()
    assert len(shown()) < 40
    assert len([line for line in shown("--all") if "tenant:t" in line]) == TENANTS
