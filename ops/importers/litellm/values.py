"""The values of a LiteLLM config as they are written: numbers in quotes, variables in their several forms."""

from __future__ import annotations

import math
import re
from typing import Any

from producer.environment import Environment

NAME = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
_WRITTEN = re.compile(rf"os\.environ/({NAME})|\$\{{({NAME})(?::?-([^{{}}]{{0,999}}))?\}}|\$({NAME})\b")
PLACEHOLDER = re.compile(
    r"<[^<>]*>|\byour[-_ ][\w-]*|\[[A-Z][A-Z0-9_]+\]|\bREPLACE[_-]ME\b|\bchange[-_]?me\b|\bxxx+\b", re.IGNORECASE
)


def filled(value: Any) -> str:
    """The text with each variable as `${NAME}`: os.environ/NAME, ${NAME}, $NAME; [NAME], which YAML reads as a
    list, is one too."""
    if isinstance(value, list) and len(value) == 1:
        return f"${{{variable_name(value[0])}}}"
    return _WRITTEN.sub(_as_variable, str(value).strip())


def _as_variable(found: re.Match[str]) -> str:
    name = found[1] or found[2] or found[4]
    return f"${{{name}:-{found[3]}}}" if found[3] else f"${{{name}}}"


def lone_variable(text: str) -> str:
    """The name, if the text is one `${NAME}` (or `${NAME:-default}`) and nothing else; otherwise ""."""
    found = re.fullmatch(rf"\$\{{({NAME})(?::-[^{{}}]*)?\}}", text)
    return found[1] if found else ""


def variable_name(text: Any) -> str:
    """The text as the name of a variable."""
    return re.sub(r"\W+", "_", str(text)).strip("_")


def number(value: Any, environment: Environment) -> float | int | None:
    """A finite number that is not negative, also in quotes or in a variable that is set; None for anything else."""
    if isinstance(value, str):
        text = filled(value)
        text = environment.get(name, "") if (name := lone_variable(text)) else text
        try:
            value = float(text)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return int(value) if float(value).is_integer() else value
