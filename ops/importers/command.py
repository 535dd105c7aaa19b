"""`failover routes import`: a foreign configuration as a routing map and job types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.local import session
from ops.options import as_json
from producer.environment import Environment
from producer.errors import UsageError
from worker.humanize import many

if TYPE_CHECKING:
    from ops.importers.litellm import Imported


@click.command("import")
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file instead of stdout."
)
@click.option("--model", help="Import only this alias (`model_name`) and its fallbacks.")
@click.option(
    "--policies",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="With -o: where the job types go. Default: POLICIES_DIR, else `policies` beside the file.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@as_json
@click.pass_obj
def import_(
    environment: Environment,
    source: Path,
    output: Path | None,
    model: str | None,
    policies: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Convert a LiteLLM config to a routing map, and each alias to a job type that is pinned to its routes.

    The report says what was taken, what was approximated and what was left out. Without -o nothing is written but the map
    to standard output; --json prints map, job types and report.
    """
    from ops.importers.litellm import imported

    if policies is not None and output is None:
        raise UsageError("--policies says where job types are written: add -o FILE for the map")
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"{output} cannot be written: there is no folder {output.parent}")
    if output is not None and output.exists() and not force:
        raise UsageError(f"{output} exists: --force overwrites it")
    found = imported(source, model, environment)
    session.note(str(found.report))
    if output is not None:
        _write_import(environment, output, policies, found)
    if as_json:
        types = {name: {**each.routing, **each.policy} for name, each in found.job_types.items()}
        click.echo(json.dumps({"routes": found.routes, "job_types": types, **found.report.sections()}, indent=2))
    elif output is None:
        click.echo(json.dumps(found.routes, indent=2))


def _write_import(environment: Environment, output: Path, policies: Path | None, found: Imported) -> None:
    """Write the map, and the job types into the policies that belong to it. Say which command comes next."""
    from ops.importers import job_types

    chosen = environment.get("POLICIES_DIR")
    folder = policies or (Path(chosen) if chosen else output.parent / "policies")
    kept = job_types.write(
        folder,
        {
            "jobs.yaml": {name: each.policy for name, each in found.job_types.items()},
            "routing.yaml": {name: each.routing for name, each in found.job_types.items()},
        },
    )
    try:
        output.write_text(json.dumps(found.routes, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None
    for name in kept:
        session.note(f"job type {name} is in {folder} already, and stays as it is: give it the pin of the report there")
    usual = {"ROUTES_FILE": output == Path("routes.json"), "POLICIES_DIR": bool(chosen) or folder == Path("policies")}
    prefix = "".join(
        f"{name}={path} "
        for (name, is_usual), path in zip(usual.items(), (output, folder), strict=True)
        if not is_usual
    )
    types = len(found.job_types) - len(kept)
    session.note(f"{many(found.count, 'route')} -> {output}, {many(types, 'job type')} -> {folder}/. Next:")
    session.note(f"  {prefix}failover routes check")
