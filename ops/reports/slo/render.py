"""A report as Markdown, or as one HTML file that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib.util import find_spec

from ops.reports.slo.client_text import markdown
from ops.reports.slo.month import Plot, Report, Section

INSTALL = "pip install 'failover-worker[plots]'"
WIDTH, HEIGHT, TICKS = 760, 240, 6
MEASURED, TARGET = "#2563eb", "#dc2626"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 0.5rem 0 1rem } td, th { padding: 0.2rem 0.8rem; text-align: left }
td { border-top: 1px solid #e5e7eb } svg { max-width: 100%; height: auto } .missed { color: #b91c1c; font-weight: 600 }
"""


def as_markdown(report: Report) -> str:
    """The report as Markdown, without plots."""
    return "\n".join(_markdown(report)) + "\n"


def _markdown(report: Report) -> Iterator[str]:
    yield f"# {markdown(report.title)}\n"
    yield from map(markdown, report.lines)
    for section in report.sections:
        yield f"\n## {markdown(section.title)}\n"
        yield from (f"- {markdown(line)}" for line in section.lines)
        if section.header:
            yield ("\n" if section.lines else "") + _row(section.header)
            yield _row(("---",) * len(section.header))
            yield from map(_row, ([markdown(cell) for cell in row] for row in section.rows))


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_html(report: Report) -> str:
    """The report as a page, with plots where the library for them is installed."""
    body = "".join(_html(report))
    head = f'<meta charset="utf-8"><title>{escape(report.title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _html(report: Report) -> Iterator[str]:
    yield f"<h1>{escape(report.title)}</h1>" + "".join(f"<p>{escape(line)}</p>" for line in report.lines)
    for section in report.sections:
        yield f"<h2>{escape(section.title)}</h2>" + "".join(f"<p>{escape(line)}</p>" for line in section.lines)
        yield from _plots(section)
        if section.header:
            head = "".join(f"<th>{escape(cell)}</th>" for cell in section.header)
            rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in section.rows)
            yield f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(text: str) -> str:
    mark = ' class="missed"' if text == "missed" else ""
    return f"<td{mark}>{escape(text)}</td>"


def _plots(section: Section) -> Iterator[str]:
    drawn = [plot for plot in section.plots if plot.points]
    if drawn and find_spec("leather") is None:
        yield f"<p>The plots of these days need a library: {escape(INSTALL)}</p>"
        return
    yield from map(_svg, drawn)


def _svg(plot: Plot) -> str:
    """The plot as inline SVG."""
    import leather  # an extra, which only HTML reports need

    leather.theme.background_color = "#ffffff"
    chart = leather.Chart(f"{plot.title}, {plot.unit}")
    first, last = plot.span[0], max(plot.span[1], plot.span[0] + 1)
    step = max(1, round((last - first) / TICKS))
    chart.add_x_scale(first, last)
    chart.add_x_axis(ticks=[*range(first, last - step // 2, step), last])
    chart.add_dots(list(plot.points), fill_color=MEASURED, radius=3, name=plot.each)
    if plot.target is not None:
        chart.add_line([(first, plot.target), (last, plot.target)], stroke_color=TARGET, name="target")
    return str(chart.to_svg(width=WIDTH, height=HEIGHT))
