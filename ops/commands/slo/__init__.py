"""`failover slo ...`: what clients were promised (policies/slo.yaml), against what was measured."""

from __future__ import annotations

import click

from ops.commands.slo.client_text import page, sow
from ops.commands.slo.promote import promote
from ops.commands.slo.report import report
from ops.commands.slo.show import check, show
from ops.options import Group


@click.group("slo", cls=Group)
def group() -> None:
    """What clients were promised, against what was measured."""


for command in (show, check, page, sow, report, promote):
    group.add_command(command)
