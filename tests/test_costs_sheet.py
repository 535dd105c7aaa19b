"""`failover costs sheet`: the formulas of the spreadsheet say what Python says, and both say what happens."""

from __future__ import annotations

import io
import math
import random
import re
from collections.abc import Iterator
from dataclasses import astuple, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.formula.tokenizer import Token

from ops.reports.costs import formulas, workbook
from ops.reports.costs.inputs import FIELDS, ROUTE_FIELDS, Given, Inputs, Origin, RouteInputs, given
from ops.reports.costs.plan import Plan, plan
from tests.support.spreadsheet import NO_SOFFICE, SOFFICE, Calculator, Values, recalculated, tokens

USUAL: dict[str, float] = {
    "requests": 50_000,
    "tokens_in": 1_200,
    "tokens_out": 350,
    "redis_usd": 12,
    "deadline_seconds": 30,
    "first_wait_seconds": 0.2,
    "longest_wait_seconds": 10,
    "retry_fails": 0.5,
    "same_provider_fails": 0.8,
    "failed_billed": 0.1,
}
ROUTE: dict[str, float] = {
    "input_price": 3,
    "output_price": 15,
    "failure_rate": 0.03,
    "retries": 1,
    "p50_seconds": 1.4,
    "p95_seconds": 6,
    "failed_seconds": 1.5,
}


def value(number: float) -> Given:
    return Given(number, Origin.ASSUMED, "a test")


def route(name: str = "a/one", **changed: float) -> RouteInputs:
    numbers = {name: value(number) for name, number in {**ROUTE, **changed}.items()}
    return RouteInputs(name, name.partition("/")[0], "hot", **numbers)


def inputs(*routes: RouteInputs, **changed: float) -> Inputs:
    numbers: dict[str, Any] = {name: value(number) for name, number in {**USUAL, **changed}.items()}
    return Inputs(**numbers, routes=routes or THREE)


def every_route(**changed: float) -> tuple[RouteInputs, ...]:
    numbers: dict[str, Any] = {name: value(number) for name, number in changed.items()}
    return tuple(replace(each, **numbers) for each in THREE)


THREE = (
    route("a/one"),
    route("a/two", input_price=0.25, output_price=1.25, p50_seconds=0.7, p95_seconds=2),
    route("b/one", input_price=0.15, output_price=0.6, failure_rate=0.08, retries=2),
)
CASES = {
    "usual": inputs(),
    "one route": inputs(route()),
    "one call": inputs(route(retries=0)),
    "no failures": inputs(*every_route(failure_rate=0)),
    "all calls fail": inputs(*every_route(failure_rate=1)),
    "the first route fails": inputs(route(failure_rate=1), *THREE[1:]),
    "no requests": inputs(requests=0),
    "one request": inputs(requests=1),
    "a thousand million requests": inputs(requests=1e9),
    "no tokens": inputs(tokens_in=0, tokens_out=0),
    "all is free": inputs(*every_route(input_price=0, output_price=0), redis_usd=0),
    "retries that wait long": inputs(*every_route(retries=5, failure_rate=0.4), longest_wait_seconds=1),
    "independent failures": inputs(retry_fails=0, same_provider_fails=0),
    "failures that last": inputs(retry_fails=1, same_provider_fails=1),
    "a short deadline": inputs(deadline_seconds=2),
    "no deadline at all": inputs(deadline_seconds=0),
    "a deadline of a day": inputs(deadline_seconds=86_400),
    "equal times": inputs(*every_route(p50_seconds=2, p95_seconds=2)),
    "p50 over p95": inputs(*every_route(p50_seconds=3, p95_seconds=2)),
    "no time at all": inputs(*every_route(p50_seconds=0, p95_seconds=0, failed_seconds=0), first_wait_seconds=0),
    "failures that take long": inputs(*every_route(failed_seconds=60, failure_rate=0.2)),
    "all failed calls are billed": inputs(failed_billed=1),
    "one provider, in two spellings": inputs(route("a/one"), route("A/two")),
    "six routes": inputs(*(route(f"p{n % 4}/m{n}", failure_rate=0.1 * n) for n in range(6))),
}
AT_THE_EDGE = (  # what another program may calculate in another way
    "usual",
    "one route",
    "no failures",
    "all calls fail",
    "no requests",
    "a deadline of a day",
    "no time at all",
    "one provider, in two spellings",
)


def written(case: Inputs) -> bytes:
    return workbook.written(case, datetime(2026, 11, 29, 2, 50, tzinfo=UTC))


def results(values: Values) -> list[float | str]:
    """What stands in the cells of the results, in the order of a Plan's fields."""
    row = formulas.RESULTS_ROW
    cells = [f"{column}{row + place}" for column in "BC" for place in range(5)] + [f"B{row + 6 + n}" for n in range(4)]
    return [values[f"Plan!{cell}"] for cell in cells]


def expected(of: Plan) -> list[float | str]:
    whole, alone, *others = astuple(of)
    return ["-" if each is None else each for each in (*whole, *alone, *others)]


def check(values: Values, case: Inputs) -> None:
    for found, right in zip(results(values), expected(plan(case)), strict=True):
        assert found == (right if isinstance(right, str) else pytest.approx(right, rel=1e-6, abs=1e-9))


def typed_in(content: bytes, case: Inputs) -> bytes:
    """The file, after a person typed other inputs into it."""
    book = openpyxl.load_workbook(io.BytesIO(content))
    sheet = book["Plan"]
    for name, number in input_cells(case):
        sheet[name] = number
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def input_cells(case: Inputs) -> Iterator[tuple[str, float]]:
    for row, field in enumerate(FIELDS, formulas.INPUTS_ROW):
        yield f"B{row}", given(case, field).value
    for row, each in enumerate(case.routes, formulas.ROUTES_ROW):
        for field in ROUTE_FIELDS:
            yield f"{formulas.COLUMN[field.name]}{row}", given(each, field).value


@pytest.mark.parametrize("name", CASES)
def test_the_formulas_say_what_python_says(name: str) -> None:
    calculator = Calculator(written(CASES[name]))
    check({at: calculator.value(at) for at in calculator.cells}, CASES[name])


@pytest.mark.server  # a process of its own
@pytest.mark.skipif(SOFFICE is None, reason=NO_SOFFICE)
def test_libreoffice_says_what_python_says(tmp_path: Path) -> None:
    files = {name: written(CASES[name]) for name in AT_THE_EDGE}
    files["failures that take long"] = typed_in(files["usual"], CASES["failures that take long"])
    found = recalculated(files, tmp_path)
    assert found.keys() == files.keys()
    for name, values in found.items():
        assert not [at for at, each in values.items() if isinstance(each, str) and each.startswith(("#", "Err:"))], name
        check(values, CASES[name])


def test_every_result_is_a_formula_and_no_figure_stands_in_one() -> None:
    calculator = Calculator(written(CASES["usual"]))
    texts = [calculator.formulas[f"Plan!{cell}"] for cell in ("B12", "C12", "B14", "C14", "B15", "C15", "B18", "B21")]
    assert len(texts) == 8
    numbers, functions, names = set[str](), set[str](), set[str]()
    for formula in calculator.formulas.values():
        for token in tokens(formula):
            if token.type == Token.FUNC and token.subtype == Token.OPEN:
                functions.add(token.value)
            elif token.subtype == Token.NUMBER:
                numbers.add(token.value)
            elif token.subtype == Token.RANGE and not re.search(r"\d", token.value):
                names.add(token.value)
    # 0.95, 0.5 and 0.1 are what p95 and p50 mean, 1000000 is that of prices, 99 and 0.000001 are bounds of rounding
    assert numbers == {"0", "1", "2", "0.95", "0.5", "0.1", "1000000", "99", "0.000001"}
    assert functions == {f"{name}(" for name in ("COUNTIF", "IF", "INDEX", "MATCH", "MAX", "MIN", "SUM", "SUMPRODUCT")}
    assert names == {field.name for field in FIELDS} == set(calculator.names)


def test_every_input_has_a_note_with_its_unit_and_its_origin() -> None:
    book = openpyxl.load_workbook(io.BytesIO(written(CASES["usual"])))
    sheet = book["Plan"]
    fields = [*FIELDS, *(field for _ in THREE for field in ROUTE_FIELDS)]
    for (at, number), field in zip(input_cells(CASES["usual"]), fields, strict=True):
        cell = sheet[at]
        assert cell.value == number and cell.fill.fgColor.rgb.endswith("FFE699")
        assert field.unit in cell.comment.text and "assumption: a test" in cell.comment.text
    assert len(sheet.data_validations.dataValidation) == len(fields)
    assert all(each.freeze_panes for each in book)


@pytest.mark.parametrize("name", ["usual", "retries that wait long", "a short deadline", "one call"])
def test_python_says_what_happens_to_requests(name: str) -> None:
    """Requests that draw their failures and their times: waits count at their longest, as in the plan."""
    case, chance, found = CASES[name], random.Random(7), []
    count, cost = 20_000, 0.0
    for _ in range(count):
        seconds, paid = simulated(case, chance)
        found.append(seconds)
        cost += paid
    found.sort()
    says = plan(case).with_failover
    missed = sum(seconds > case.deadline_seconds.value for seconds in found) / count
    p95 = min(found[int(0.95 * count)], case.deadline_seconds.value)
    assert says.p95_seconds == pytest.approx(p95, rel=0.04)
    assert says.missed_share == pytest.approx(missed, rel=0.1, abs=5e-4)
    paid_usd = cost / count * case.requests.value + case.redis_usd.value
    assert says.cost_usd == pytest.approx(paid_usd, rel=0.01)


def simulated(case: Inputs, chance: random.Random) -> tuple[float, float]:
    """(seconds until the answer, infinite without one; dollars) of one request."""
    seconds, paid, failed_before = 0.0, 0.0, set[str]()
    for each in case.routes:
        usd = (case.tokens_in.value * each.input_price.value + case.tokens_out.value * each.output_price.value) / 1e6
        lasting = case.same_provider_fails.value if each.provider in failed_before else 0.0
        for retry in range(int(each.retries.value) + 1):
            if retry:
                wait = case.first_wait_seconds.value * 2 ** (retry - 1)
                seconds += min(wait, case.longest_wait_seconds.value)
            if chance.random() >= max(each.failure_rate.value, case.retry_fails.value if retry else lasting):
                return seconds + drawn(each, chance.random()), paid + usd
            seconds += each.failed_seconds.value
            paid += usd * case.failed_billed.value
        failed_before.add(each.provider)
    return float("inf"), paid


def drawn(of: RouteInputs, share: float) -> float:
    """A time to answer: from 0 to p50 evenly; then each p95 - p50 leaves a tenth."""
    p50, p95 = of.p50_seconds.value, of.p95_seconds.value
    return 2 * share * p50 if share < 0.5 else p50 - (p95 - p50) * math.log10(2 * (1 - share))
