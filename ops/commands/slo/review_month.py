"""`failover review-month`: the draft of the monthly review, with its evidence."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from ops.local import session
from ops.reports.slo.month import bounds
from ops.reports.slo.render import as_markdown
from ops.reports.slo.review import gather, review
from producer.environment import Environment
from worker.money.caps import load_budgets
from worker.objectives.policy import load_slo_policy
from worker.queue.dead_letters import now_ms


@click.command("review-month")
@click.option("--month", metavar="YYYY-MM", help="Of this month.  [default: this one]")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Instead of the terminal.")
@click.pass_obj
def review_month(environment: Environment, month: str | None, output: Path | None) -> None:
    """Draft the monthly review: what was saved, what to change, and why."""
    now = datetime.now(UTC)
    month = month or f"{now:%Y-%m}"
    bounds(month, now)  # before Redis is looked for
    policy, budgets = load_slo_policy(environment), load_budgets(environment)
    with session.reached(environment) as (_, client):
        text = as_markdown(review(gather(client, policy, budgets, month, now_ms(client))))
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    click.echo(f"written: {output}")
