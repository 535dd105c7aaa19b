"""What the documents tell a person to type exists: every `failover` command and option that they show."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from ops.cli import failover
from tests.support.documents import DOCUMENTS, ROOT, shown
from worker.cli import command as failover_worker


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_shown_exists(document: Path) -> None:
    for name, *words in shown(document):
        command: click.Command = failover if name == "failover" else failover_worker
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            if words[0] not in command.commands and command is failover and not re.fullmatch(r"[a-z]+", words[0]):
                break  # prose after the bare name
            assert words[0] in command.commands, f"{document.name}: {name} {' '.join(words)}"
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h", "--version"}
        for word in words:
            if word.startswith("-") and word != "-":
                assert word.partition("=")[0] in options, f"{document.name}: {name} {' '.join(words)}: {word}"


def test_the_runbook_shows_commands() -> None:
    assert len(shown(ROOT / "runbook.md")) >= 15
