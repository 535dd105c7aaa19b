"""Writes the job types of an import into policies/jobs.yaml and policies/routing.yaml: one block between two comments, which
the next import replaces. Everything else in the files stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from producer.environment import packaged
from producer.errors import ConfigurationError, Problem

SECTION = "job_types"
_BEGIN = "# begin of `failover routes import`: the next import replaces these lines"
_END = "# end of `failover routes import`"


def write(folder: Path, files: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Write the entries by file name and job type; returns the types that the files have already, which stay as they are.

    A file that is missing begins as the packaged one. Raises ConfigurationError if one cannot be read or written: then no
    file has changed.
    """
    before = {name: _text(folder / name) for name in files}
    own = {kept for name, text in before.items() for kept in _types(folder / name, without_block(text))}
    texts = {
        name: with_block(
            str(folder / name), before[name], {key: value for key, value in types.items() if key not in own}
        )
        for name, types in files.items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError([Problem(str(folder), "", f"cannot be written: {error.strerror}")]) from None
    return [key for key in next(iter(files.values())) if key in own]


def without_block(text: str) -> str:
    """The text without the block of an earlier import."""
    lines = text.splitlines(keepends=True)
    marks = [number for number, line in enumerate(lines) if line.strip() in (_BEGIN, _END)]
    return text if len(marks) < 2 else "".join([*lines[: marks[0]], *lines[marks[-1] + 1 :]])


def with_block(where: str, text: str, types: Mapping[str, Mapping[str, Any]]) -> str:
    """The text with a block of these entries in place of the one of an earlier import. Raises ConfigurationError."""
    text = without_block(text)
    if text and not text.endswith("\n"):
        text += "\n"
    if not types:
        return text
    section = _section(where, text)
    if section is None:
        return f"{text}\n{SECTION}:\n{_block(types, 2)}"
    key, value = section
    if isinstance(value, yaml.MappingNode) and value.flow_style:
        inside = value.start_mark.index + 1
        return f"{text[:inside]}\n{_block(types, 2, ',')}{text[inside:].removeprefix(chr(10))}"
    indent = value.value[0][0].start_mark.column if isinstance(value, yaml.MappingNode) else 2
    lines = text.splitlines(keepends=True)
    after = key.end_mark.line + 1
    return "".join([*lines[:after], _block(types, indent), *lines[after:]])


def _block(types: Mapping[str, Mapping[str, Any]], indent: int, end: str = "") -> str:
    """`end`: of each entry, a comma within braces."""
    entries = (f"{json.dumps(name)}: {json.dumps(fields)}{end}" for name, fields in types.items())
    return "".join(f"{' ' * indent}{line}\n" for line in (_BEGIN, *entries, _END))


def _text(path: Path) -> str:
    try:
        return (path if path.exists() else packaged("policies") / path.name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError([Problem(str(path), "", f"cannot be read: {error}")]) from None


def _types(path: Path, text: str) -> list[str]:
    section = _section(str(path), text)
    return (
        [str(key.value) for key, _ in section[1].value] if section and isinstance(section[1], yaml.MappingNode) else []
    )


def _section(where: str, text: str) -> tuple[yaml.Node, yaml.Node] | None:
    """(key, value) of `job_types`; None without it."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigurationError([Problem(where, "", f"is not YAML: {' '.join(str(error).split())}")]) from None
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    return next(((key, value) for key, value in pairs if key.value == SECTION), None)
