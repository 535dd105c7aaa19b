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
_PINNED = "# set by `failover routes import`"
_END = "# end of `failover routes import`"


def write(folder: Path, files: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Write the entries by file name and job type; returns the types that a file has already with a pin of their own.

    A file that is missing begins as the packaged one. Raises ConfigurationError; if one cannot be read, none has changed.
    """
    texts: dict[str, str] = {}
    kept: list[str] = []
    for name, types in files.items():
        where, text = str(folder / name), without_block(_text(folder / name))
        for own in [key for key in types if key in _types(where, text)]:
            if "pin" in types[own] and (pinned := _with_pin(where, text, own, types[own]["pin"])) is not None:
                text = pinned
            elif types[own]:
                kept.append(own)
        texts[name] = with_block(where, text, {key: types[key] for key in types if key not in _types(where, text)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError([Problem(str(folder), "", f"cannot be written: {error.strerror}")]) from None
    return list(dict.fromkeys(kept))


def without_block(text: str) -> str:
    """The text without the block and the pins of an earlier import."""
    lines = text.splitlines(keepends=True)
    marks = [number for number, line in enumerate(lines) if line.strip() in (_BEGIN, _END)]
    if len(marks) > 1:
        lines = [*lines[: marks[0]], *lines[marks[-1] + 1 :]]
    return "".join(
        f"{line.partition('[')[0]}[]\n" if line.rstrip().endswith(_PINNED) and "[" in line else line for line in lines
    )


def _with_pin(where: str, text: str, job_type: str, pin: Any) -> str | None:
    """The text with the pin in place of the empty one of a job type that is there; None if that has no `pin: []` on a line
    of its own."""
    found = next((value for key, value in _entries(where, text) if key.value == job_type), None)
    fields: list[tuple[yaml.Node, yaml.Node]] = found.value if isinstance(found, yaml.MappingNode) else []
    empty = next((value for key, value in fields if key.value == "pin" and value.value == []), None)
    if empty is None or text[empty.end_mark.index :].partition("\n")[0].strip():
        return None
    return f"{text[: empty.start_mark.index]}{_as_text(pin)}  {_PINNED}{text[empty.end_mark.index :]}"


def with_block(where: str, text: str, types: Mapping[str, Mapping[str, Any]]) -> str:
    """The text, which has no block, with one of these entries. Raises ConfigurationError."""
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
    entries = (f"{_as_text(name)}: {_as_text(fields)}{end}" for name, fields in types.items())
    return "".join(f"{' ' * indent}{line}\n" for line in (_BEGIN, *entries, _END))


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # YAML does not read the surrogates that escapes are made of


def _text(path: Path) -> str:
    try:
        return (path if path.exists() else packaged("policies") / path.name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError([Problem(str(path), "", f"cannot be read: {error}")]) from None


def _types(where: str, text: str) -> list[str]:
    return [str(key.value) for key, _ in _entries(where, text)]


def _entries(where: str, text: str) -> list[tuple[yaml.Node, yaml.Node]]:
    section = _section(where, text)
    return section[1].value if section and isinstance(section[1], yaml.MappingNode) else []


def _section(where: str, text: str) -> tuple[yaml.Node, yaml.Node] | None:
    """(key, value) of `job_types`; None without it."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigurationError([Problem(where, "", f"is not YAML: {' '.join(str(error).split())}")]) from None
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    return next(((key, value) for key, value in pairs if key.value == SECTION), None)
