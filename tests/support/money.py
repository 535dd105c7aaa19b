"""Budgets for a workshop, and the command that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support.workshop import Workshop


def budgets(workshop: Workshop, **fields: Any) -> None:
    """policies/budgets.yaml beside a jobs.yaml."""
    if "POLICIES_DIR" not in workshop.environment:
        workshop.policy()
    (Path(workshop.environment["POLICIES_DIR"]) / "budgets.yaml").write_text(yaml.safe_dump({"version": 1, **fields}))


def failover(workshop: Workshop, *words: str) -> str:
    ended = workshop.run("failover", *words)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
