"""`failover costs sheet`: a spreadsheet to plan with, or its figures as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import click

from ops.local import session
from ops.options import as_json
from ops.reports.costs.inputs import Inputs, Origin, origins
from ops.reports.costs.plan import as_data, plan
from ops.reports.costs.prefill import measured, prefilled
from producer.environment import Environment
from producer.errors import UsageError

INSTALL = "pip install 'failover-worker[sheet]'"
ENDING = ".xlsx"


@click.command()
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help=f"The {ENDING} file to write.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("--job-type", default="default", show_default=True, help="Whose deadline: a type of policies/jobs.yaml.")
@as_json
@click.pass_obj
def sheet(environment: Environment, output: Path | None, force: bool, job_type: str, as_json: bool) -> None:
    """Write a spreadsheet with formulas: the expected cost a month, the p95 with retries, the risk of missed deadlines.

    It is filled from routes.json, prices and the traffic of the last 30 days; what is not known is an assumption, and marked."""
    if output is None and not as_json:
        raise UsageError(f"give -o costs{ENDING}, or --json")
    if output is not None:
        _check(output, force=force)
    with session.existing(environment) as client:
        traffic = measured(client) if client is not None else None
    inputs = prefilled(environment, job_type, traffic)
    if output is not None:
        from ops.reports.costs.workbook import written

        output.write_bytes(written(inputs, datetime.now(UTC)))
    if as_json:
        click.echo(json.dumps(as_data(inputs, plan(inputs)), indent=2))
    elif output is not None:
        click.echo(f"written: {output} ({_told(inputs)})")


def _check(output: Path, *, force: bool) -> None:
    """Raise UsageError if the sheet cannot or should not be written."""
    if output.suffix.lower() != ENDING:
        raise UsageError(f"-o {output}: give a name that ends with {ENDING}")
    if output.exists() and not force:
        raise UsageError(f"{output} exists, maybe with your own figures: --force overwrites it")
    if find_spec("openpyxl") is None:
        raise UsageError(
            f"a spreadsheet is written with openpyxl, which is not installed: {INSTALL}; --json needs nothing"
        )


def _told(inputs: Inputs) -> str:
    """`12 values measured, 9 configured, 8 assumptions`."""
    counts = origins(inputs)
    return ", ".join(f"{counts[origin]} {words}" for origin, words in _ORIGINS.items())


_ORIGINS = {
    Origin.MEASURED: "values measured",
    Origin.CONFIGURED: "configured",
    Origin.ASSUMED: "assumptions: look at them first",
}
