"""Whether lists show everybody the same few items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from foretaste.reporting import charts
from foretaste.reporting.runs import ReportedRun
from foretaste.reporting.wording import figure, metric_kind, metric_title, share

EXPLAINED = {
    "coverage": "The share of the catalog that appears in at least one list. Low: most items are "
    "never shown to anybody.",
    "gini": "How unevenly the places in the lists go to items: 0 when every item gets as many, "
    "near 1 when a few items get nearly all.",
    "popularity_lift": "How popular the shown items are, against what people choose by "
    "themselves. Above 1 (the line) the lists push what is popular already.",
    "head_share": "The share of places that go to the most chosen fifth of the catalog.",
}


class Panel(NamedTuple):
    """One measure of popularity bias for all runs."""

    title: str
    explained: str
    chart: Markup


def popularity_panels(runs: Sequence[ReportedRun], part: str) -> tuple[Panel, ...]:
    """A small chart for each measure of the lists taken together; none when not measured."""
    names = list(dict.fromkeys(name for run in runs for name in run.figures(part, "lists")))
    panels = []
    for name in names:
        kind = metric_kind(name)
        lift = kind == "popularity_lift"
        rows = []
        for run in runs:
            value = run.figures(part, "lists").get(name)
            shown = figure(value, name) if lift or kind == "gini" else share(value)
            rows.append(charts.Bar(run.title, value, series=run.series, shown=shown))
        chart = charts.bars(
            rows,
            title=f"{metric_title(name)} of each run",
            top=None if lift else 1.0,
            mark=1.0 if lift else None,
        )
        panels.append(Panel(metric_title(name), EXPLAINED.get(kind, ""), chart))
    return tuple(panels)
