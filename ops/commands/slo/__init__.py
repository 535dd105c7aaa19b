"""`failover slo ...`: what clients were promised (policies/slo.yaml), against what was measured."""

from __future__ import annotations

import click

from ops.commands.slo.show import check, show


@click.group("slo")
def group() -> None:
    """What clients were promised, against what was measured."""


for command in (show, check):
    group.add_command(command)
