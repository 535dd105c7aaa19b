"""Options shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from producer.environment import load_environment

as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def port_option(lowest: int) -> Callable[[Any], Any]:
    """`--port`, from `lowest` on; 0 lets the system choose."""
    return click.option(
        "--port",
        type=click.IntRange(lowest, 65535),
        default=lambda: load_environment().get("PORT") or 8000,
        help="Or set PORT.  [default: 8000]",
    )
