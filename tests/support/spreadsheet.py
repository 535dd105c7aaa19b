"""Recalculates a spreadsheet in two ways: by LibreOffice, and by a small reader of its formulas, which needs nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from string import ascii_uppercase
from types import CodeType
from typing import Any, TypeGuard

import openpyxl
from openpyxl.formula import Tokenizer
from openpyxl.formula.tokenizer import Token

SOFFICE = shutil.which("soffice")
NO_SOFFICE = "LibreOffice is not installed: apt-get install --no-install-recommends libreoffice-calc"
LONGEST_SECONDS = 100
OWN_ROW = "999999"
Values = Mapping[str, Any]  # "Plan!B12" -> its value


def recalculated(files: Mapping[str, bytes], folder: Path) -> dict[str, Values]:
    """The values of these .xlsx files by their names, as LibreOffice calculates them."""
    assert SOFFICE is not None
    sources = [folder / f"{name}.xlsx" for name in files]
    for source, content in zip(sources, files.values(), strict=True):
        source.write_bytes(content)
    own = f"-env:UserInstallation=file://{folder}/profile"  # another LibreOffice may run
    command = [SOFFICE, own, "--headless", "--convert-to", "xlsx", "--outdir", str(folder / "out"), *map(str, sources)]
    subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS)
    return {source.stem: stored(folder / "out" / source.name) for source in sources}


def stored(path: Path) -> Values:
    """The values that a spreadsheet has stored for its cells."""
    book = openpyxl.load_workbook(path, data_only=True)
    return {f"{sheet.title}!{cell.coordinate}": cell.value for sheet in book for row in sheet for cell in row}


class Calculator:
    """Calculates the formulas of an .xlsx file, those of later sheets first, because the first one has the results."""

    def __init__(self, content: bytes) -> None:
        book = openpyxl.load_workbook(BytesIO(content))
        self.cells = {f"{sheet.title}!{cell.coordinate}": cell.value for sheet in book for row in sheet for cell in row}
        self.names = {name: each.attr_text.replace("$", "") for name, each in book.defined_names.items()}
        self._values: dict[str, Any] = {}
        for sheet in reversed(book.sheetnames):
            for at in self.cells:
                if at.startswith(f"{sheet}!"):
                    self.value(at)

    @property
    def formulas(self) -> dict[str, str]:
        """The formulas by their cells."""
        return {at: value for at, value in self.cells.items() if _is_formula(value)}

    def value(self, at: str) -> Any:
        """The value of a cell, such as `Plan!B12`."""
        if at not in self._values:
            found = self.cells.get(at)
            self._values[at] = self._calculated(found, at) if _is_formula(found) else found
        return self._values[at]

    def _calculated(self, formula: str, at: str) -> Any:
        sheet, _, cell = at.partition("!")
        row = cell.lstrip(ascii_uppercase)
        own = {"ref": lambda text: self._referred(text.replace(OWN_ROW, row), sheet)}
        template = re.sub(rf"(?<=[A-Z]){row}(?!\d)", OWN_ROW, formula)
        return eval(compiled(template), {"__builtins__": {}, **FUNCTIONS, **own})  # noqa: S307 - formulas of our own sheet

    def _referred(self, text: str, sheet: str) -> Any:
        text = self.names.get(text, text).replace("$", "")
        sheet, _, area = text.rpartition("!") if "!" in text else (sheet, "", text)
        if ":" not in area:
            return self.value(f"{sheet}!{area}")
        (begin, end), (column, other) = re.findall(r"\d+", area), re.findall(r"[A-Z]+", area)
        columns = [openpyxl.utils.get_column_letter(number) for number in range(*_ends(column, other))]
        return [self.value(f"{sheet}!{each}{row}") for row in range(int(begin), int(end) + 1) for each in columns]


@lru_cache(maxsize=4096)
def compiled(formula: str) -> CodeType:
    """A formula to evaluate. Those of one column are the same, where they name their own row as OWN_ROW."""
    return compile("".join(python(formula)), formula, "eval")


def _is_formula(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value.startswith("=")


def _ends(column: str, other: str) -> tuple[int, int]:
    number = openpyxl.utils.column_index_from_string
    return number(column), number(other) + 1


def tokens(formula: str) -> Sequence[Token]:
    found: Sequence[Token] = Tokenizer(formula).items
    return found


def python(formula: str) -> Iterator[str]:
    """The formula as an expression of Python. Only the branch of an IF that is taken is calculated, as in a spreadsheet."""
    inside: list[bool] = []  # whether each open bracket is that of an IF
    for token in tokens(formula):
        match token.type, token.subtype:
            case Token.FUNC, Token.OPEN:
                inside.append(token.value == "IF(")
                yield token.value + ("lambda: (" if inside[-1] else "")
            case Token.FUNC, Token.CLOSE:
                yield "))" if inside.pop() else ")"
            case Token.SEP, _:
                yield "), lambda: (" if inside[-1] else ","
            case Token.OPERAND, Token.RANGE:
                yield f"ref({token.value!r})"
            case Token.OP_IN, _:
                yield {"^": "**", "=": "=="}.get(token.value, token.value)
            case _:
                yield token.value


def _flat(values: Sequence[Any]) -> list[float]:
    return [each for value in values for each in (value if isinstance(value, list) else [value]) if each is not None]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "IF": lambda condition, then, otherwise: (then if condition() else otherwise)(),
    "MIN": lambda *values: min(_flat(values)),
    "MAX": lambda *values: max(_flat(values)),
    "SUM": lambda *values: sum(_flat(values)),
    "SUMPRODUCT": lambda first, second: sum(a * b for a, b in zip(first, second, strict=True)),
    "COUNTIF": lambda values, wanted: sum(each.casefold() == wanted.casefold() for each in values),
    "MATCH": lambda wanted, values, kind: bisect_right(values, wanted),
    "INDEX": lambda values, place: values[place - 1],
}
