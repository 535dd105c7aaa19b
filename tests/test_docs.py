"""What the documents tell a person to type exists: every `failover` command and option that they show."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from ops.cli import COMMANDS, failover
from tests.support.documents import DOCUMENTS, ROOT, shown
from worker.cli import command as failover_worker


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_shown_exists(document: Path) -> None:
    for name, *words in shown(document):
        command: click.Command = failover if name == "failover" else failover_worker
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words[0])
            if found is None and command is failover and not re.fullmatch(r"[a-z]+", words[0]):
                break  # prose after the bare name
            assert found is not None, f"{document.name}: {name} {' '.join(words)}"
            command = found
            del words[0]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h", "--version"}
        for word in words:
            if word.startswith("-") and word != "-":
                assert word.partition("=")[0] in options, f"{document.name}: {name} {' '.join(words)}: {word}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_in_one_line_is_that_of_the_command(name: str) -> None:
    command = failover.get_command(click.Context(failover), name)
    assert command is not None
    assert command.get_short_help_str(300) == COMMANDS[name][1]


def test_the_runbook_shows_commands() -> None:
    assert len(shown(ROOT / "runbook.md")) >= 15


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4}|\$ )make ([a-z-]+)", document.read_text(), flags=re.MULTILINE))
    assert named <= targets
