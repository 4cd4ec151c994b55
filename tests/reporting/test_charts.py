"""Drawn lengths and places are those of the numbers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.reporting.charts import (
    PLOT,
    Bar,
    Column,
    Difference,
    Line,
    bars,
    columns,
    dots,
    forest,
    histogram,
    lines,
    ticks,
)


def _numbers(svg: str, pattern: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, svg)]


def test_bar_lengths_are_the_values() -> None:
    rows = [Bar("a", 0.2, 0.1, 0.3), Bar("b", 0.4, 0.35, 0.5, 1)]
    svg = bars(rows, title="t", top=0.5)
    assert _numbers(svg, r'class="bar"[^>]* width="([\d.]+)%"') == [40, 80]
    whiskers = re.findall(r'class="whisker" x1="([\d.]+)%" x2="([\d.]+)%"', svg)
    assert [tuple(map(float, ends)) for ends in whiskers][::3] == [(20, 60), (70, 100)]
    assert '<g class="s1">' in svg


def test_bars_without_a_value_or_an_interval() -> None:
    svg = bars([Bar("none", None), Bar("no interval", 1.0)], title="t", axis=True)
    assert svg.count('class="bar"') == 1 and "whisker" not in svg
    assert _numbers(svg, r'class="bar"[^>]* width="([\d.]+)%"') == [100]


def test_mark_is_at_its_value() -> None:
    assert _numbers(bars([Bar("a", 4)], title="t", mark=1), r'class="mark" x1="([\d.]+)%"') == [25]


def test_long_labels_get_a_line_of_their_own() -> None:
    short, long = bars([Bar("a", 1)], title="t"), bars([Bar("a" * 60, 1)], title="t")
    assert _numbers(long, r'height="(\d+)" aria')[0] > _numbers(short, r'height="(\d+)" aria')[0]
    assert f">{'a' * 60}</" in long.replace("<title>", ">")


def test_forest_draws_zero_and_tells_sure_from_unsure() -> None:
    rows = [Difference("a", 0.1, 0.05, 0.15, True, ""), Difference("b", -0.1, -0.2, 0, False, "")]
    svg = forest(rows, title="t")
    # The axis goes from -0.2 to 0.2, so that 0 is in the middle.
    assert _numbers(svg, r'class="zero" x1="([\d.]+)%"') == [50]
    assert _numbers(svg, r'circle cx="([\d.]+)%"') == [75, 25]
    assert svg.index('s0 sure"') < svg.index('s0 unsure"')


def test_lines_go_through_their_points_and_mark_one() -> None:
    svg = lines([Line("a", ((1, 0.0), (2, 1.0), (3, 0.5)), 2, (2, 1.0))], title="t")
    assert re.search(r'd="M0.0 1000.0 L500.0 0.0 L1000.0 500.0"', svg)
    assert _numbers(svg, r'circle cx="([\d.]+)%"') == [50]
    assert _numbers(svg, r'cy="([\d.]+)"') == [0]


def test_a_curve_of_one_point_is_a_dot() -> None:
    assert lines([Line("a", ((1, 0.3),))], title="t").count("<circle") == 1
    assert lines([], title="t") == ""


def test_columns_are_as_high_as_their_counts() -> None:
    svg = columns([Column("x", 50), Column("y", 100, "test")], title="t")
    assert _numbers(svg, r'height="([\d.]+)"><title>') == [PLOT / 2, PLOT]


def test_histogram_is_in_proportion() -> None:
    svg = histogram([Bar("1-4", 10, shown="10"), Bar("5+", 5, shown="5")], title="t")
    wide = _numbers(svg, r'<rect[^>]* width="([\d.]+)%"')
    assert wide[0] == pytest.approx(2 * wide[1])


def test_dots_leave_out_what_was_not_measured() -> None:
    svg = dots([("g", [Bar("a", 1, 0.5, 2), Bar("b", None)])], title="t")
    assert svg.count("<circle") == 1
    assert _numbers(svg, r'circle cx="([\d.]+)%"') == [50]


def test_words_are_escaped() -> None:
    svg = bars([Bar("<script>", 1, shown="<b>")], title="<i>")
    assert "<script>" not in svg and "<b>" not in svg and "<i>" not in svg


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_ticks_hold_all_values(one: float, other: float) -> None:
    low, high = sorted((one, other))
    steps = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1e-9)
    assert steps[0] <= low + slack and steps[-1] >= high - slack
    assert 2 <= len(steps) <= 8 and steps == sorted(set(steps))
