"""`failover slo report`: a month for clients, as Markdown or HTML."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from ops.local import session
from ops.reports.slo.month import bounds, read
from ops.reports.slo.month import report as report_of
from ops.reports.slo.render import as_html, as_markdown
from producer.environment import Environment
from producer.errors import UsageError
from worker.objectives.policy import load_slo_policy
from worker.queue.dead_letters import now_ms

FORMS = {".html": as_html, ".md": as_markdown}


@click.command()
@click.option("--month", required=True, metavar="YYYY-MM", help="Of this month; one that is not over, up to now.")
@click.option("--tenant", default="", help="Of this client alone.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A .html or .md file.")
@click.pass_obj
def report(environment: Environment, month: str, tenant: str, output: Path | None) -> None:
    """Write the monthly report: success, p95 and cost against their targets, outages survived, jobs saved, drills."""
    form = FORMS.get(output.suffix.lower()) if output else as_markdown
    if form is None:
        raise UsageError(f"-o {output}: give a name that ends with .html or .md")
    bounds(month, datetime.now(UTC))  # before Redis is looked for
    policy = load_slo_policy(environment)
    with session.reached(environment) as (_, client):
        now = now_ms(client)
        text = form(report_of(read(client, policy, month, now, tenant), now))
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    click.echo(f"written: {output}")
