"""The cost plan as a spreadsheet: inputs in coloured cells with a note each, results by formulas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from io import BytesIO

from openpyxl import Workbook
from openpyxl.chart import Reference, ScatterChart, Series
from openpyxl.comments import Comment
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.worksheet import Worksheet

from ops.reports.costs import formulas
from ops.reports.costs.formulas import ALONE, CALLS, CURVE, PLAN, WITH
from ops.reports.costs.inputs import COUNT, FIELDS, ROUTE_FIELDS, SHARE, USD, Field, Given, Inputs, Origin, given
from ops.reports.costs.plan import CALLS_OF_A_ROUTE, SHORTEST_SECONDS
from worker.humanize import printable

FILLS = {
    Origin.MEASURED: PatternFill("solid", fgColor="DDEBF7"),
    Origin.CONFIGURED: PatternFill("solid", fgColor="DDEBF7"),
    Origin.ASSUMED: PatternFill("solid", fgColor="FFE699"),
}
RESULT, HEADING = PatternFill("solid", fgColor="E2EFDA"), PatternFill("solid", fgColor="44546A")
FINE_SHARE, FINE_USD = "0.000000%", "#,##0.0000"
FONT = "Calibri"
TEXT = 4  # the column of Plan that has the explanations
WIDTH = 4 + len(ROUTE_FIELDS)  # columns of Plan
OUTCOME = (  # title, form, meaning: in the order of plan.Outcome
    ("Expected cost, USD a month", USD, "all calls, also failed ones that are billed; with failover also Redis"),
    ("Cost of a request, USD", FINE_USD, "the same, for one request"),
    (
        "p95 with retries, seconds",
        "0.00",
        "95% of the requests have an answer by then; the deadline: fewer have one by then",
    ),
    ("Missed-deadline risk", FINE_SHARE, "of a request: every route failed, or answered too late"),
    ("Requests that miss it a month", "#,##0.00", "with failover they wait in the queue; without it nobody has them"),
)
COMPARISON = (
    ("Answered by another route", FINE_SHARE, "of the requests: the first route failed, a later one answered"),
    ("Failover costs more, USD a month", USD, "Redis, and calls of other routes"),
    ("Missed deadlines that it avoids a month", "#,##0.00", "requests"),
    (
        "It pays if a missed deadline costs over, USD",
        FINE_USD,
        "what it costs more, divided by what it avoids; - if that is nothing",
    ),
)
HOW_TO_READ = (
    "Change any coloured cell: all results follow. Blue: measured or configured. Yellow: an assumption, look at it first.",
    "Each input has a note with its unit and where its value comes from: hold the pointer over the cell.",
    "The sheet Calls has each call that a request may make; Curve, how many requests have an answer after so many seconds.",
    "For planning, not for billing: weights, caps, breakers, and answers that come later from the queue are left out.",
)
CALL_HEADINGS = (
    "route",
    "retry",
    "used",
    "fails",
    "reached",
    "begins, s",
    "answered",
    "cost, USD a request",
    "too late",
)
CURVE_HEADINGS = ("point", "seconds", "answered, with failover", "answered, first route only")


def written(inputs: Inputs, now: datetime) -> bytes:
    """The .xlsx file. `now`: the time that it names as its own, in UTC."""
    book = Workbook()
    plan = book.worksheets[0]
    plan.title = PLAN
    calls, curve = book.create_sheet(CALLS), book.create_sheet(CURVE)
    _write_plan(plan, inputs, now)
    _write_calls(calls, inputs)
    _write_curve(curve, inputs)
    _draw_curve(plan, curve, formulas.ROUTES_ROW + len(inputs.routes) + 1)
    for place, field in enumerate(FIELDS):
        cell = f"{PLAN}!$B${formulas.INPUTS_ROW + place}"
        book.defined_names[field.name] = DefinedName(field.name, attr_text=cell)
    book.calculation.fullCalcOnLoad = True
    sink = BytesIO()
    book.save(sink)
    return sink.getvalue()


def _write_plan(sheet: Worksheet, inputs: Inputs, now: datetime) -> None:
    _title(sheet, "What failover costs, and what it saves")
    sheet["A2"] = printable(
        f"Written by `failover costs sheet` on {now:%Y-%m-%d %H:%M} UTC. Routes: {inputs.routes_from}"
    )
    _head(sheet, 4, ["How to read this"])
    for row, text in enumerate(HOW_TO_READ, 5):
        sheet.cell(row, 1, text)
    _head(sheet, formulas.RESULTS_ROW - 1, ["Results", "with failover", "first route only", "what it is"])
    _write_results(sheet, len(inputs.routes))
    _head(sheet, formulas.INPUTS_ROW - 1, ["Inputs", "value", "unit", "what it is, and where the value comes from"])
    for row, field in enumerate(FIELDS, formulas.INPUTS_ROW):
        value = given(inputs, field)
        sheet.cell(row, 1, field.title)
        _write_input(sheet, f"B{row}", field, value)
        sheet.cell(row, 3, field.unit).alignment = Alignment("left", indent=1)
        _explain(sheet, row, f"{field.meaning} ({value.told})")
    _write_routes(sheet, inputs)
    _widths(sheet, [44, 16, 17, *[13] * len(ROUTE_FIELDS), 60])
    sheet.freeze_panes = "B4"


def _write_results(sheet: Worksheet, routes: int) -> None:
    columns = (formulas.outcome(routes, WITH), formulas.outcome(routes, ALONE))
    for row, ((title, form, meaning), *both) in enumerate(zip(OUTCOME, *columns, strict=True), formulas.RESULTS_ROW):
        _write_result(sheet, row, title, form, meaning, both)
    row = formulas.RESULTS_ROW + len(OUTCOME) + 1
    for (title, form, meaning), formula in zip(COMPARISON, formulas.comparison(routes), strict=True):
        _write_result(sheet, row, title, form, meaning, [formula])
        row += 1


def _write_result(sheet: Worksheet, row: int, title: str, form: str, meaning: str, values: Sequence[str]) -> None:
    sheet.cell(row, 1, title)
    for place, formula in enumerate(values, 2):
        cell = sheet.cell(row, place, formula)
        cell.number_format, cell.fill, cell.font = form, RESULT, Font(FONT, bold=True)
        cell.alignment = Alignment(horizontal="right")
    _explain(sheet, row, meaning)


def _explain(sheet: Worksheet, row: int, text: str) -> None:
    sheet.cell(row, TEXT, printable(text)).alignment = Alignment("left", indent=1)


def _write_routes(sheet: Worksheet, inputs: Inputs) -> None:
    titles = (f"{field.title}, {field.unit}" for field in ROUTE_FIELDS)
    heading = ["Routes, in the order in which they are tried", "provider", "tier", *titles, "assumptions"]
    _head(sheet, formulas.ROUTES_ROW - 1, heading, wrap=True)
    for row, route in enumerate(inputs.routes, formulas.ROUTES_ROW):
        for column, text in (
            (formulas.NAME, route.name),
            (formulas.PROVIDER, route.provider),
            (formulas.TIER, route.tier),
        ):
            sheet[f"{column}{row}"] = printable(text)
        for field in ROUTE_FIELDS:
            _write_input(sheet, f"{formulas.COLUMN[field.name]}{row}", field, given(route, field))
        assumed = [field.title for field in ROUTE_FIELDS if given(route, field).origin is Origin.ASSUMED]
        sheet.cell(row, WIDTH, ", ".join(assumed).lower()).alignment = Alignment("left", indent=1)


def _write_input(sheet: Worksheet, at: str, field: Field, value: Given) -> None:
    """An input cell with its colour, its note, and what may be typed into it."""
    cell = sheet[at]
    cell.value, cell.number_format, cell.fill = value.value, field.form, FILLS[value.origin]
    note = Comment(printable(f"{field.title}, {field.unit}: {field.meaning}\n\n{value.told}"), "failover")
    note.width, note.height = 320, 130
    cell.comment = note
    bounds = (
        {"operator": "between", "formula1": "0", "formula2": f"{field.highest:g}"} if field.highest is not None else {}
    )
    bounds = bounds or {"operator": "greaterThanOrEqual", "formula1": "0"}
    rule = DataValidation(type="whole" if field.whole else "decimal", allow_blank=False, **bounds)
    rule.error = f"{field.title}: {field.unit}, from 0" + (
        f" to {field.highest:g}" if field.highest is not None else ""
    )
    sheet.add_data_validation(rule)
    rule.add(at)


def _write_calls(sheet: Worksheet, inputs: Inputs) -> None:
    _title(sheet, "Every call that a request may make, in order")
    sheet["A2"] = (
        "fails: the chance, if all calls before failed. reached, answered: shares of all requests. begins: after the first "
        "call. too late: share of its answers that come after the deadline."
    )
    _head(sheet, formulas.FIRST_CALL_ROW - 1, list(CALL_HEADINGS))
    forms = ["@", "0", "0", SHARE, FINE_SHARE, "0.00", FINE_SHARE, "0.000000", FINE_SHARE]
    _write_rows(sheet, formulas.FIRST_CALL_ROW, formulas.call_rows(len(inputs.routes)), forms)
    _widths(sheet, [44, 8, 8, 10, 12, 12, 12, 20, 12])
    sheet.freeze_panes = f"B{formulas.FIRST_CALL_ROW}"


def _write_curve(sheet: Worksheet, inputs: Inputs) -> None:
    routes = len(inputs.routes)
    _title(sheet, "How many requests have an answer after so many seconds")
    sheet["A2"] = "Shares of all requests; from column E on, those that this call answers."
    sheet["A3"] = "start"
    sheet[formulas.SHORTEST] = SHORTEST_SECONDS
    for column in (WITH, ALONE):
        sheet[f"{column}{formulas.BEFORE_ROW}"] = formulas.before_p95(column)
    calls = [f"{route.name}, call {number + 1}" for route in inputs.routes for number in range(CALLS_OF_A_ROUTE)]
    _head(sheet, formulas.FIRST_POINT_ROW - 1, [*CURVE_HEADINGS, *map(printable, calls)], wrap=True)
    forms = [COUNT, "0.000", *[SHARE] * (2 + len(calls))]
    _write_rows(sheet, formulas.FIRST_POINT_ROW, formulas.curve_rows(routes), forms)
    _widths(sheet, [8, 12, 14, 14, *[14] * len(calls)])
    sheet.freeze_panes = f"E{formulas.FIRST_POINT_ROW}"


def _write_rows(sheet: Worksheet, first: int, rows: Iterator[list[str | int]], forms: Sequence[str]) -> None:
    for row, values in enumerate(rows, first):
        for column, (value, form) in enumerate(zip(values, forms, strict=False), 1):
            sheet.cell(row, column, value).number_format = form


def _draw_curve(plan: Worksheet, curve: Worksheet, row: int) -> None:
    """Draw the curve into Plan, its upper left corner in this row."""
    chart = ScatterChart(style=2, scatterStyle="lineMarker")
    chart.title, chart.width, chart.height = "Requests that have an answer after so many seconds", 26, 9
    first, last = formulas.FIRST_POINT_ROW + 1, formulas.LAST_POINT_ROW
    seconds = Reference(curve, min_col=2, min_row=first, max_row=last)
    for column, title in ((3, "with failover"), (4, "first route only")):
        series = Series(Reference(curve, min_col=column, min_row=first, max_row=last), seconds, title=title)
        series.marker.symbol = "none"
        chart.series.append(series)
    chart.x_axis.title, chart.x_axis.scaling.logBase, chart.x_axis.number_format = "seconds", 10, "General"
    chart.y_axis.number_format, chart.y_axis.scaling.min, chart.y_axis.scaling.max = "0%", 0, 1
    chart.legend.position = "b"
    chart.x_axis.delete = chart.y_axis.delete = False
    plan.add_chart(chart, f"A{row}")


def _title(sheet: Worksheet, text: str) -> None:
    sheet["A1"], sheet["A1"].font = text, Font(FONT, 16, bold=True)


def _head(sheet: Worksheet, row: int, titles: Sequence[str], *, wrap: bool = False) -> None:
    """A heading over all columns. `wrap`: its titles are longer than the columns are wide."""
    for column in range(1, max(len(titles), WIDTH if sheet.title == PLAN else 0) + 1):
        cell = sheet.cell(row, column, titles[column - 1] if column <= len(titles) else None)
        cell.font, cell.fill = Font(FONT, bold=True, color="FFFFFF"), HEADING
        cell.alignment = Alignment(wrap_text=wrap, vertical="center")
    if wrap:
        sheet.row_dimensions[row].height = 48


def _widths(sheet: Worksheet, widths: Sequence[int]) -> None:
    for column, width in enumerate(widths):
        sheet.column_dimensions[sheet.cell(1, column + 1).column_letter].width = width
    sheet.page_setup.orientation, sheet.page_setup.fitToHeight = "landscape", 0
    sheet.sheet_properties.pageSetUpPr.fitToPage = True
