"""The documents, and the commands that they show."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(
        ROOT / name
        for name in ("README.md", "runbook.md", "examples/README.md", "examples/travel-mode/README.md", "Procfile")
    ),
    *sorted((ROOT / "docs").glob("*.md")),
]
_COMMAND = re.compile(r"(?:^|[`$ /&])(failover(?:-worker)?)((?: +[^\s`|#&;)]+)*)", re.MULTILINE)


def shown(document: Path) -> list[list[str]]:
    """Every command line in a code span, a code block or a Procfile, in words."""
    text = document.read_text()
    spans = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^    (.+)$", text, re.MULTILINE)
    if document.name == "Procfile":
        spans = text.splitlines()
    lines = [found for span in spans for found in _COMMAND.findall(span)]
    return [[name, *rest.split()] for name, rest in lines]
