"""`failover costs ...`: what failover costs, planned ahead."""

from __future__ import annotations

import click

from ops.commands.costs.sheet import sheet
from ops.options import Group


@click.group("costs", cls=Group)
def group() -> None:
    """Plan what failover costs a month, and what it saves."""


group.add_command(sheet)
