"""Options shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from producer.environment import load_environment

_ANY_LENGTH = 10_000
as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


class Group(click.Group):
    """Its help shows the first sentence of each command whole; click's own cuts it at the width of one line."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        found = {name: self.get_command(context, name) for name in self.list_commands(context)}
        rows = [
            (name, each.get_short_help_str(_ANY_LENGTH)) for name, each in found.items() if each and not each.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def port_option(lowest: int) -> Callable[[Any], Any]:
    """`--port`, from `lowest` on; 0 lets the system choose."""
    return click.option(
        "--port",
        type=click.IntRange(lowest, 65535),
        default=lambda: load_environment().get("PORT") or 8000,
        help="Or set PORT.  [default: 8000]",
    )
