"""Charts as inline SVG, drawn from numbers by a few small functions.

The width of a chart is that of the page: every horizontal position is a percentage, so that text
keeps its size on a phone. A chart is an image to assistive technology, with a title and a
description that says the numbers; each mark has a tooltip of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from foretaste.reporting.palette import dash_of

ROW = 46  # px: a line of text, a bar, and air
AXIS = 26  # px below the rows of a chart for the numbers of its axis
BESIDE = 42  # characters that fit on one line of a phone
PLOT = 200  # px, the height of a chart with lines or columns


class Bar(NamedTuple):
    """A value with the ends of its interval (None: unknown) and how it is written."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    series: int = 0
    shown: str = ""


class Difference(NamedTuple):
    """A difference with its interval (None: unknown); ``sure`` when chance hardly explains it."""

    label: str
    value: float
    low: float | None
    high: float | None
    sure: bool
    shown: str


class Line(NamedTuple):
    """Points ``(x, y)`` from left to right; ``mark`` is the one to point out."""

    label: str
    points: tuple[tuple[float, float], ...]
    series: int = 0
    mark: tuple[float, float] | None = None


class Column(NamedTuple):
    """One upright bar; ``part`` is its place in the timeline: train, valid or test."""

    label: str
    value: float
    part: str = "train"


def bars(
    rows: Sequence[Bar],
    *,
    title: str,
    top: float | None = None,
    mark: float | None = None,
    axis: bool = False,
) -> Markup:
    """Horizontal bars from 0, with whiskers where an interval is known.

    Args:
        rows: from top to bottom.
        title: what is drawn.
        top: the value at the right edge; by default a round number above all values.
        mark: a value to draw a line at, such as a ratio of 1.
        axis: whether to number the horizontal axis.
    """
    drawn = [row for row in rows if row.value is not None]
    highest = max([max(row.value or 0, row.high or 0) for row in drawn], default=0)
    top = top or ticks(0, max(highest, mark or 0) or 1)[-1]
    drop = _drop(rows)
    bottom = (ROW + drop) * len(rows)
    height = bottom + (AXIS if axis else 0)
    grid = _axis(ticks(0, top), 0, top, bottom) if axis else ""
    lines = "".join(_bar(row, n * (ROW + drop), drop, top) for n, row in enumerate(rows))
    at = _percent(mark or 0, 0, top)
    below = [n * (ROW + drop) + drop for n in range(len(rows) if mark else 0)]
    marks = "".join(_upright("mark", at, y + 19, y + 39) for y in below)
    return _svg(height, title, _said(rows), grid + lines + marks)


def forest(rows: Sequence[Difference], *, title: str) -> Markup:
    """Differences as points with whiskers on both sides of a line at 0 (a forest plot)."""
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None]
    steps = ticks(min([0.0, *ends]), max([0.0, *ends]))
    drop = _drop(rows)
    height = (ROW + drop) * len(rows)
    zero = _percent(0, steps[0], steps[-1])
    body = _axis(steps, steps[0], steps[-1], height, sign=True) + _upright("zero", zero, 0, height)
    body += "".join(
        _point(
            Bar(row.label, row.value, row.low, row.high, 0, row.shown),
            index * (ROW + drop),
            drop,
            (steps[0], steps[-1]),
            "sure" if row.sure else "unsure",
        )
        for index, row in enumerate(rows)
    )
    return _svg(height + AXIS, title, "; ".join(f"{r.label}: {r.shown}" for r in rows), body)


def lines(series: Sequence[Line], *, title: str) -> Markup:
    """Values over whole numbers such as epochs, each line with a dash of its own (``DASHES``)."""
    points = [point for line in series for point in line.points]
    if not points:
        return Markup("")
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    steps = ticks(min(y for _, y in points), max(y for _, y in points))
    box = (left, max(right, left + 1), steps[0], steps[-1])
    body = _level_lines(steps) + _numbers_below(left, right)
    paths = "".join(_path(line, box, number) for number, line in enumerate(series))
    body += (
        f'<svg width="100%" height="{PLOT}" viewBox="0 0 1000 1000" '
        f'preserveAspectRatio="none">{paths}</svg>'
    )
    body += "".join(_ends(line, box) for line in series)
    return _svg(PLOT + AXIS, title, _said_of_lines(series), body, "plot")


def columns(rows: Sequence[Column], *, title: str) -> Markup:
    """Upright bars side by side, with the first, middle and last label below."""
    steps = ticks(0, max([row.value for row in rows], default=0) or 1)
    wide = 100 / max(len(rows), 1)
    body = _level_lines(steps)
    for index, row in enumerate(rows):
        tall = PLOT * row.value / steps[-1]
        body += (
            f'<rect class="column {escape(row.part)}" x="{index * wide + wide * 0.08:.3f}%" '
            f'y="{PLOT - tall:.2f}" width="{wide * 0.84:.3f}%" height="{tall:.2f}">'
            f"<title>{escape(row.label)}: {row.value:,.0f}</title></rect>"
        )
    shown = sorted({0, len(rows) // 2, len(rows) - 1}) if rows else []
    for index in shown:
        at = (index + 0.5) * wide
        body += _text(rows[index].label, at, PLOT + 18, _anchor(at))
    said = ", ".join(f"{row.label}: {row.value:,.0f}" for row in rows)
    return _svg(PLOT + AXIS, title, said, body, "plot")


def histogram(rows: Sequence[Bar], *, title: str) -> Markup:
    """Short horizontal bars with their labels at the left and their counts behind them."""
    highest = max([row.value or 0 for row in rows], default=0) or 1
    body = ""
    for index, row in enumerate(rows):
        wide, y = 78 * (row.value or 0) / highest, index * 28
        body += (
            f'<text x="-10" y="{y + 17}" text-anchor="end" class="soft">{escape(row.label)}</text>'
            f'<rect class="column train" x="0" y="{y + 4}" width="{wide:.3f}%" height="18" '
            f'rx="2"></rect><text x="{wide:.3f}%" dx="8" y="{y + 18}">{escape(row.shown)}</text>'
        )
    return _svg(28 * len(rows), title, _said(rows), body, "plot")


def dots(groups: Sequence[tuple[str, Sequence[Bar]]], *, title: str) -> Markup:
    """Groups of points with whiskers on one axis from 0, for slices side by side."""
    rows = [row for _, members in groups for row in members if row.value is not None]
    top = ticks(0, max([max(row.value or 0, row.high or 0) for row in rows], default=0) or 1)[-1]
    y, body = 0, ""
    for label, members in groups:
        body += f'<text x="0" y="{y + 15}">{escape(label)}</text>'
        y += 22
        for row in members:
            if row.value is not None:
                body += _whiskered(row, y + 8, (0, top), "dot", tip=f"{label}, {row.label}")
            y += 16
        y += 12
    said = "; ".join(f"{label}: {_said(members)}" for label, members in groups)
    return _svg(y + AXIS, title, said, _axis(ticks(0, top), 0, top, y) + body)


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """About ``wanted`` round steps that begin at or below ``low`` and end at or above ``high``."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-100):  # too flat for steps
        low, high = (low - 0.5, low + 0.5) if low else (0.0, 1.0)
    rough = (high - low) / wanted
    digits = math.floor(math.log10(rough))
    power = 10.0**digits
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 2 - digits) for number in range(first, last + 1)]


def _drop(rows: Sequence[Bar] | Sequence[Difference]) -> int:
    """What a row needs more, in px, when a label and its figure do not fit beside each other."""
    return 18 if any(len(row.label) + len(row.shown) > BESIDE for row in rows) else 0


def _head(label: str, shown: str, y: int, drop: int) -> str:
    """A label with its figure at the right, or below it."""
    cut = label if len(label) <= BESIDE else f"{label[:18]} … {label[-20:]}"
    place = f'x="0" y="{y + 33}"' if drop else f'x="100%" y="{y + 15}" text-anchor="end"'
    return (
        f'<text x="0" y="{y + 15}">{escape(cut)}<title>{escape(label)}</title></text>'
        f'<text {place} class="figure">{escape(shown)}</text>'
    )


def _bar(row: Bar, y: int, drop: int, top: float) -> str:
    label = _head(row.label, row.shown, y, drop)
    y += drop
    track = f'<rect class="track" x="0" y="{y + 23}" width="100%" height="12" rx="2"></rect>'
    if row.value is None:
        return label + track
    wide = _percent(row.value, 0, top)
    filled = (
        f'<rect class="bar" x="0" y="{y + 23}" width="{wide:.3f}%" height="12" rx="2">'
        f"<title>{escape(row.label)}: {escape(row.shown)}</title></rect>"
    )
    return f'{label}{track}<g class="s{row.series}">{filled}{_whisker(row, y + 29, (0, top))}</g>'


def _point(row: Bar, y: int, drop: int, ends: tuple[float, float], kind: str) -> str:
    mark = _whiskered(row, y + drop + 29, ends, kind, tip=row.label)
    return _head(row.label, row.shown, y, drop) + mark


def _whiskered(row: Bar, y: int, ends: tuple[float, float], kind: str, *, tip: str) -> str:
    assert row.value is not None
    return (
        f'<g class="s{row.series} {kind}">{_whisker(row, y, ends)}'
        f'<circle cx="{_percent(row.value, *ends):.3f}%" cy="{y}" r="5">'
        f"<title>{escape(tip)}: {escape(row.shown)}</title></circle></g>"
    )


def _whisker(row: Bar, y: int, ends: tuple[float, float]) -> str:
    if row.low is None or row.high is None:
        return ""
    low, high = _percent(row.low, *ends), _percent(row.high, *ends)
    return (
        f'<line class="whisker" x1="{low:.3f}%" x2="{high:.3f}%" y1="{y}" y2="{y}"></line>'
        + _upright("whisker", low, y - 4, y + 4)
        + _upright("whisker", high, y - 4, y + 4)
    )


def _axis(steps: Sequence[float], low: float, high: float, y: int, *, sign: bool = False) -> str:
    drawn = ""
    places = _places(steps)
    for step in steps:
        at = _percent(step, low, high)
        drawn += _upright("grid", at, 0, y)
        written = f"{step:+.{places}f}" if sign and step else f"{step:.{places}f}"
        drawn += _text(written.replace("-", "\N{MINUS SIGN}"), at, y + 18, _anchor(at))
    return drawn


def _level_lines(steps: Sequence[float]) -> str:
    drawn = ""
    places = _places(steps)
    for step in steps:
        y = PLOT * (steps[-1] - step) / (steps[-1] - steps[0])
        drawn += (
            f'<line class="grid" x1="0" x2="100%" y1="{y:.2f}" y2="{y:.2f}"></line>'
            f'<text x="-8" y="{y + 4:.2f}" text-anchor="end" class="soft">{step:,.{places}f}</text>'
        )
    return drawn


def _numbers_below(left: float, right: float) -> str:
    span = max(right - left, 1)
    step = max(1, round(ticks(0, span)[1]))
    shown = [left, *(n for n in range(0, int(right), step) if left + span / 20 < n)]
    shown = [n for n in shown if n < right - span / 20] + [right]
    marks = ((n, 100 * (n - left) / span) for n in shown)
    return "".join(_text(f"{n:.0f}", at, PLOT + 18, _anchor(at)) for n, at in marks)


def _path(line: Line, box: tuple[float, float, float, float], number: int) -> str:
    left, right, low, high = box
    places = [
        f"{1000 * (x - left) / (right - left):.1f} {1000 * (high - y) / (high - low):.1f}"
        for x, y in line.points
    ]
    drawn = "M" + " L".join(places) if places else ""
    dash = f' stroke-dasharray="{dash_of(number)}"' if dash_of(number) else ""
    return f'<g class="s{line.series}"><path d="{drawn}"{dash}></path></g>'


def _ends(line: Line, box: tuple[float, float, float, float]) -> str:
    """A dot for a curve of one point, a ring around the point to point out."""
    left, right, low, high = box
    marks = [line.mark] if line.mark else (list(line.points) if len(line.points) == 1 else [])
    return "".join(
        f'<g class="s{line.series} best"><circle cx="{_percent(x, left, right):.3f}%" '
        f'cy="{PLOT * (high - y) / (high - low):.2f}" r="5"><title>{escape(line.label)}: {y:.4f} '
        f"at {x:.0f}</title></circle></g>"
        for x, y in marks
    )


def _upright(kind: str, at: float, top: float, bottom: float) -> str:
    return f'<line class="{kind}" x1="{at:.3f}%" x2="{at:.3f}%" y1="{top}" y2="{bottom}"></line>'


def _text(words: str, at: float, y: float, anchor: str) -> str:
    return f'<text class="soft" x="{at:.3f}%" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def _anchor(at: float) -> str:
    return "start" if at < 4 else "end" if at > 96 else "middle"


def _percent(value: float, low: float, high: float) -> float:
    return 100 * (value - low) / (high - low)


def _places(steps: Sequence[float]) -> int:
    """Decimals that all the steps need."""
    return next((n for n in range(7) if all(abs(s - round(s, n)) < 1e-9 for s in steps)), 7)


def _said(rows: Sequence[Bar]) -> str:
    return ", ".join(f"{row.label} {row.shown}".strip() for row in rows)


def _said_of_lines(series: Sequence[Line]) -> str:
    parts = [
        f"{line.label} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}"
        for line in series
        if line.points
    ]
    return "; ".join(parts)


def _svg(height: int, title: str, description: str, body: str, kind: str = "") -> Markup:
    # Markup: whatever came from outside has been escaped where it was written.
    return Markup(
        f'<svg class="chart {kind}" role="img" width="100%" height="{height}" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{body}</svg>"
    )
