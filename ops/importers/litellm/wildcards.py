"""Entries whose `model_name` has a `*`: they become an entry for each name that the rest of the config uses.

Source: LiteLLM's router finds the longest pattern that fits a name, and puts what each `*` stood for into `model`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

ANY = "*"


def entries_for(name: str, entries: Iterable[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(position from 1, the entry as it would be for this name) of those with the longest pattern that fits it."""
    fitting = [
        (position, entry, found)
        for position, entry in enumerate(entries, 1)
        if ANY in (pattern := str(entry.get("model_name"))) and (found := _pattern(pattern).fullmatch(name))
    ]
    longest = max((len(str(entry["model_name"])) for _, entry, _ in fitting), default=0)
    for position, entry, found in fitting:
        if len(str(entry["model_name"])) == longest:
            params = entry["litellm_params"]
            model = _filled(str(params.get("model")), found.groups())
            yield position, {**entry, "model_name": name, "litellm_params": {**params, "model": model}}


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(map(re.escape, name.split(ANY))), re.DOTALL)


def _filled(model: str, parts: Sequence[str]) -> str:
    """The model with each `*` replaced by the part of its place; further ones stay."""
    for part in parts:
        model = model.replace(ANY, part, 1)
    return model
