"""The cost plan of `plan.py` as formulas, and where each value stands. Functions that LibreOffice, Excel and Google Sheets all
have: IF, MIN, MAX, SUM, SUMPRODUCT, COUNTIF, MATCH, INDEX. Scalar inputs have names: `requests` is a cell of `Plan`."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_uppercase

from openpyxl.utils import get_column_letter

from ops.reports.costs.inputs import FIELDS, ROUTE_FIELDS
from ops.reports.costs.plan import CALLS_OF_A_ROUTE, FEWEST_MISSES, MOST_TENTHS, STEPS

PLAN, CALLS, CURVE = "Plan", "Calls", "Curve"

RESULTS_ROW = 12  # of Plan: the first result
INPUTS_ROW = 24  # of Plan: the first of FIELDS
ROUTES_ROW = INPUTS_ROW + len(FIELDS) + 3  # of Plan: the first route
NAME, PROVIDER, TIER = "A", "B", "C"  # columns of a route
COLUMN = {field.name: ascii_uppercase[3 + place] for place, field in enumerate(ROUTE_FIELDS)}

FIRST_CALL_ROW = 5  # of Calls
ROUTE, RETRY, USED, FAILS, REACHED, BEGINS, ANSWERED, COST, LATE = "ABCDEFGHI"  # columns of Calls

FIRST_POINT_ROW = 5  # of Curve
LAST_POINT_ROW = FIRST_POINT_ROW + STEPS
STEP, SECONDS, WITH, ALONE = "ABCD"  # columns of Curve; those of the calls come after them
BEFORE_ROW = 3  # of Curve: the place of the last point before 95%
SHORTEST = f"${SECONDS}${BEFORE_ROW}"


def call_rows(routes: int) -> Iterator[list[str | int]]:
    """The rows of Calls: each call on each route, then what no call answered."""
    for place in range(routes):
        for retry in range(CALLS_OF_A_ROUTE):
            yield _call_row(FIRST_CALL_ROW + place * CALLS_OF_A_ROUTE + retry, ROUTES_ROW + place, retry)
    yield ["no route answered: waits in the queue", "", "", "", _reached(_after(routes))]


def _call_row(row: int, route: int, retry: int) -> list[str | int]:
    """`row`: of Calls; `route`: its row in Plan."""
    used, fails, reached, answered = (f"{column}{row}" for column in (USED, FAILS, REACHED, ANSWERED))
    price = f"(tokens_in*{_of(route, 'input_price')}+tokens_out*{_of(route, 'output_price')})/1000000"
    return [
        f"={PLAN}!${NAME}${route}",
        retry,
        f"=IF({RETRY}{row}<={_of(route, 'retries')},1,0)",
        _fails(route, retry),
        _reached(row),
        _begins(row, route, retry),
        f"=IF({used}=1,{reached}*(1-{fails}),0)",
        f"=IF({used}=1,({answered}+{reached}*{fails}*failed_billed)*{price},0)",
        f"={_late(f'(deadline_seconds-{BEGINS}{row})', route)}",
    ]


def _fails(route: int, retry: int) -> str:
    if retry:
        return f"=MAX({_of(route, 'failure_rate')},retry_fails)"
    providers = f"{PLAN}!${PROVIDER}${ROUTES_ROW}:${PROVIDER}${route}"
    seen = f"COUNTIF({providers},{PLAN}!${PROVIDER}${route})>1"
    return f"=MAX({_of(route, 'failure_rate')},IF({seen},same_provider_fails,0))"


def _reached(row: int) -> str:
    if row == FIRST_CALL_ROW:
        return "=1"
    before = row - 1
    return f"=IF({USED}{before}=1,{REACHED}{before}*{FAILS}{before},{REACHED}{before})"


def _begins(row: int, route: int, retry: int) -> str:
    if row == FIRST_CALL_ROW:
        return "=0"
    before, route_before = row - 1, route if retry else route - 1
    failed = f"={BEGINS}{before}+IF({USED}{before}=1,{_of(route_before, 'failed_seconds')},0)"
    wait = f"MIN(longest_wait_seconds,first_wait_seconds*2^({RETRY}{row}-1))"
    return f"{failed}+IF({USED}{row}=1,{wait},0)" if retry else failed


def _late(seconds: str, route: int) -> str:
    """The share of a route's answers that take longer."""
    p50, p95 = _of(route, "p50_seconds"), _of(route, "p95_seconds")
    tail = f"IF({p95}>{p50},0.5*0.1^MIN({MOST_TENTHS},({seconds}-{p50})/({p95}-{p50})),0)"
    return f"IF({seconds}<=0,1,IF({seconds}<={p50},1-0.5*{seconds}/{p50},{tail}))"


def curve_rows(routes: int) -> Iterator[list[str | int]]:
    """The rows of Curve: at each point the share of requests that has an answer, in all and by each call."""
    calls = routes * CALLS_OF_A_ROUTE
    first, of_first, last = column(0), column(CALLS_OF_A_ROUTE - 1), column(calls - 1)
    for step in range(STEPS + 1):
        row = FIRST_POINT_ROW + step
        share = f"{STEP}{row}/{STEP}${LAST_POINT_ROW}"
        yield [
            step,
            f"={SHORTEST}*(deadline_seconds/{SHORTEST})^({share})" if step else 0,
            f"=SUM({first}{row}:{last}{row})",
            f"=SUM({first}{row}:{of_first}{row})",
            *(_answered(row, call) for call in range(calls)),
        ]


def column(call: int) -> str:
    """The column of Curve that has the call of this number, from 0."""
    return str(get_column_letter(len((STEP, SECONDS, WITH, ALONE)) + 1 + call))


def _answered(row: int, call: int) -> str:
    of_call, route = FIRST_CALL_ROW + call, ROUTES_ROW + call // CALLS_OF_A_ROUTE
    seconds = f"(${SECONDS}{row}-{CALLS}!${BEGINS}${of_call})"
    return f"={CALLS}!${ANSWERED}${of_call}*(1-{_late(seconds, route)})"


def before_p95(of: str) -> str:
    """The place of the last point before 95%, in the column WITH or ALONE."""
    return f"=MATCH(0.95,{_points(of)},1)"


def outcome(routes: int, of: str) -> list[str]:
    """The formulas of an Outcome in the order of its fields, with failover (column WITH) or by the first route only (ALONE)."""
    end = _after(routes if of == WITH else 1)
    cell = {WITH: "B", ALONE: "C"}[of]
    fixed = "redis_usd+" if of == WITH else ""
    answered, lates = _calls(ANSWERED, end), _calls(LATE, end)
    return [
        f"={fixed}requests*SUM({_calls(COST, end)})",
        f"=IF(requests>0,{cell}{RESULTS_ROW}/requests,0)",
        _p95(of),
        f"={CALLS}!${REACHED}${end}+SUMPRODUCT({answered},{lates})",
        f"=requests*{cell}{RESULTS_ROW + 3}",
    ]


def comparison(routes: int) -> list[str]:
    """The formulas of a Plan's other fields, in their order. They stand below the outcomes, after a row that is empty."""
    cost, missed, row = RESULTS_ROW, RESULTS_ROW + 4, RESULTS_ROW + 6
    return [
        f"=SUM({CALLS}!${ANSWERED}${_after(1)}:${ANSWERED}${_after(routes)})",
        f"=B{cost}-C{cost}",
        f"=MAX(0,C{missed}-B{missed})",
        f'=IF(B{row + 2}>{FEWEST_MISSES:f},MAX(0,B{row + 1}/B{row + 2}),"-")',
    ]


def _p95(of: str) -> str:
    points, curve, before = _points(SECONDS), _points(of), f"{CURVE}!${of}${BEFORE_ROW}"
    begin, end = f"INDEX({points},{before})", f"INDEX({points},{before}+1)"
    low, high = f"INDEX({curve},{before})", f"INDEX({curve},{before}+1)"
    between = f"{begin}+(0.95-{low})/({high}-{low})*({end}-{begin})"
    return f"=IF({CURVE}!${of}${LAST_POINT_ROW}<=0.95,deadline_seconds,{between})"


def _of(route: int, field: str) -> str:
    return f"{PLAN}!${COLUMN[field]}${route}"


def _after(routes: int) -> int:
    """The row of Calls after so many routes."""
    return FIRST_CALL_ROW + routes * CALLS_OF_A_ROUTE


def _calls(column: str, end: int) -> str:
    return f"{CALLS}!${column}${FIRST_CALL_ROW}:${column}${end - 1}"


def _points(column: str) -> str:
    return f"{CURVE}!${column}${FIRST_POINT_ROW}:${column}${LAST_POINT_ROW}"
