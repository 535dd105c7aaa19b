"""Names of tools in the alphabet that Anthropic takes, and back again in the answer: other providers take dots and blanks too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from worker.routes.tool_turns import calls_of

LONGEST_NAME = 128
_FITS = re.compile(rf"[a-zA-Z0-9_-]{{1,{LONGEST_NAME}}}")
_FOREIGN = re.compile(r"[^a-zA-Z0-9_-]")


def fitting_names(body: Mapping[str, Any]) -> dict[str, str]:
    """The fitting name for each name of a tool that does not fit; empty for most jobs. No two tools get one name."""
    tools = [tool.get("function") if isinstance(tool, dict) else None for tool in body.get("tools") or ()]
    functions = [each for each in (*tools, *(body.get("functions") or ())) if isinstance(each, dict)]
    for message in body.get("messages") or ():
        called = [call.get("function") for call in calls_of(message)] if isinstance(message, dict) else []
        functions += [each for each in called if isinstance(each, dict)]
    given = [name for each in functions if isinstance(name := each.get("name"), str)]
    taken, fitting = {name for name in given if _FITS.fullmatch(name)}, dict[str, str]()
    for name in dict.fromkeys(given):
        if name in taken:
            continue
        short = _FOREIGN.sub("_", name)[: LONGEST_NAME - 4] or "tool"
        free = next(each for n in range(len(given) + 1) if (each := f"{short}_{n}" if n else short) not in taken)
        fitting[name] = free
        taken.add(free)
    return fitting


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The same request or answer with other names, wherever a function is named."""
    if isinstance(value, list):
        return [renamed(each, names) for each in value]
    if not isinstance(value, dict):
        return value
    made = {key: _named(each, names) if key in _FUNCTIONS else renamed(each, names) for key, each in value.items()}
    return _named(made, names) if value.get("role") == "function" else made


_FUNCTIONS = frozenset({"function", "function_call", "functions"})


def _named(function: Any, names: Mapping[str, str]) -> Any:
    if isinstance(function, list):
        return [_named(each, names) for each in function]
    if isinstance(function, dict) and isinstance(name := function.get("name"), str):
        return {**function, "name": names.get(name, name)}
    return function
