"""How good the lists are: of each run, of each pair, of each group of users and items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from foretaste.data.sources import counted
from foretaste.errors import InputError
from foretaste.experiments.comparing import LESS_IS_BETTER, Comparison, compare
from foretaste.reporting import charts
from foretaste.reporting.headline import significant
from foretaste.reporting.runs import BESIDE, ReportedRun, labels_of
from foretaste.reporting.tables import Cell, Row, Table
from foretaste.reporting.wording import (
    MINUS,
    figure,
    known,
    metric_kind,
    metric_title,
    p_value,
    share,
    signed,
    signed_span,
    span,
    whole,
)

USER_SLICES = {
    "cold": "No history",
    "1-4": "1 to 4 events",
    "5-19": "5 to 19 events",
    "20-99": "20 to 99 events",
    "100+": "100 events or more",
}
ITEM_SLICES = {
    "head": "Head (most chosen fifth)",
    "tail": "Tail (all other items)",
    "new": "New (not in training)",
}

NBSP = "\N{NO-BREAK SPACE}"
FEWEST = 20
"""A group of fewer users is in the table only: its interval would flatten all others."""


@dataclass(frozen=True)
class Scores:
    """The comparison of the runs: charts may be empty, ``notes`` say why."""

    table: Table | None
    chart: Markup
    pairs: Table | None
    forest: Markup
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Slices:
    """Groups of users or items: a chart and the numbers in it, both absent when not measured."""

    chart: Markup
    table: Table | None


def paired(
    runs: Sequence[ReportedRun], part: str, metric: str | None
) -> tuple[Comparison | None, str]:
    """The comparison user by user, or None and a sentence that says why there is none."""
    measured = [run for run in runs if run.figures(part)]
    if metric is None or len(measured) < 2:
        return None, "Differences need two evaluated runs; here there are fewer."
    try:
        found = compare([run.folder for run in measured], metric=metric, part=_part(part))
    except InputError as error:
        return None, f"Differences could not be tested: {error}"
    names = [run.folder for run in measured]
    titles = dict(zip(labels_of(names), (run.label for run in measured), strict=True))
    rows = tuple(row._replace(run=titles[row.run]) for row in found.rows)
    pairs = tuple(pair._replace(a=titles[pair.a], b=titles[pair.b]) for pair in found.pairs)
    return replace(found, rows=rows, pairs=pairs), ""


def scores(
    runs: Sequence[ReportedRun],
    part: str,
    metric: str | None,
    comparison: Comparison | None,
    why_not: str,
) -> Scores:
    """Figures of all runs side by side."""
    measured = [run for run in runs if run.figures(part)]
    notes = [
        f"{run.title} has no figures for the {part} part."
        + ("" if run.done else f" Its run was cut off: foretaste resume {run.folder.path}")
        for run in runs
        if not run.figures(part)
    ]
    if not measured:
        return Scores(None, Markup(""), None, Markup(""), tuple(notes))
    chart = Markup("")
    if metric is not None:
        rows = [_bar(run, part, metric) for run in _best_first(measured, part, metric)]
        title = f"{metric_title(metric)} of each run, with 95 % intervals"
        chart = charts.bars(rows, title=title, axis=True)
    table = metrics_table(measured, part, metric, beside=False)
    if comparison is None:
        return Scores(table, chart, None, Markup(""), (*notes, why_not))
    return Scores(table, chart, _pairs(comparison), _forest(comparison), tuple(notes))


def user_slices(runs: Sequence[ReportedRun], part: str, metric: str | None) -> Slices:
    """The metric for users with short and long histories."""
    sliced = [run for run in runs if run.figures(part, "slices").get("users")]
    groups = [run.figures(part, "slices")["users"] for run in sliced]
    if not sliced or metric is None:
        return Slices(Markup(""), None)
    present = [name for name in _order(USER_SLICES, groups) if _most(groups, name)]
    bars = {
        name: [
            _interval_bar(run, (one.get(name) or {}).get("metrics", {}).get(metric), metric)
            for run, one in zip(sliced, groups, strict=True)
        ]
        for name in present
    }
    if not any(bar.value is not None for row in bars.values() for bar in row):
        return Slices(Markup(""), None)
    heads = {
        name: f"{USER_SLICES.get(name, name)} ({whole(_most(groups, name))}{NBSP}users)"
        for name in present
    }
    title = f"{metric_title(metric)} by the length of the user's history"
    large = [name for name in present if _most(groups, name) >= FEWEST]
    chart = charts.dots([(heads[name], bars[name]) for name in large or present], title=title)
    return Slices(chart, _across(sliced, heads, bars, title))


def item_slices(runs: Sequence[ReportedRun], part: str) -> Slices:
    """The share of targets found, for popular, other and new items."""
    sliced = [run for run in runs if run.figures(part, "slices").get("items")]
    groups = [run.figures(part, "slices")["items"] for run in sliced]
    names = [name for one in groups for value in one.values() for name in value if "@" in name]
    if not names:
        return Slices(Markup(""), None)
    recall = names[0]
    bars = {
        name: [
            charts.Bar(
                run.title,
                (one.get(name) or {}).get(recall),
                series=run.series,
                shown=share((one.get(name) or {}).get(recall)),
            )
            for run, one in zip(sliced, groups, strict=True)
        ]
        for name in _order(ITEM_SLICES, groups)
    }
    targets = {n: max((one.get(n) or {}).get("targets") or 0 for one in groups) for n in bars}
    heads = {
        n: f"{ITEM_SLICES.get(n, n)}, {whole(targets[n])}{NBSP}targets" for n in bars if targets[n]
    }
    title = f"{metric_title(recall)} by the kind of item that came next"
    chart = charts.dots([(heads[name], bars[name]) for name in heads], title=title)
    return Slices(chart, _across(sliced, heads, bars, title))


def _part(part: str):
    return "valid" if part == "valid" else "test"


def _best_first(runs: Iterable[ReportedRun], part: str, metric: str) -> list[ReportedRun]:
    return sorted(runs, key=lambda run: -(run.value(part, metric) or 0.0))


def _best(runs: Iterable[ReportedRun], part: str, metric: str) -> float | None:
    values = [run.value(part, metric) for run in runs]
    found = [value for value in values if value is not None and known(value)]
    return (min if metric in LESS_IS_BETTER else max)(found, default=None)


def _bar(run: ReportedRun, part: str, metric: str) -> charts.Bar:
    return _interval_bar(run, run.figures(part).get(metric), metric)


def _interval_bar(run: ReportedRun, found: dict | None, metric: str) -> charts.Bar:
    found = found or {}
    low, high = found.get("low"), found.get("high")
    interval = span(low, high, metric)
    shown = figure(found.get("value"), metric) + (f" ({interval})" if interval else "")
    return charts.Bar(run.title, found.get("value"), low, high, run.series, shown)


def metrics_table(
    runs: Sequence[ReportedRun], part: str, metric: str | None, *, beside: bool
) -> Table | None:
    """Means with intervals: of being right, or of what is ``BESIDE`` it; None without any."""
    measured = dict.fromkeys(name for run in runs for name in run.figures(part))
    names = [name for name in measured if (metric_kind(name) in BESIDE) == beside]
    if not names:
        return None
    ordered = _best_first(runs, part, metric) if metric else list(runs)
    best = {name: _best(runs, part, name) for name in names}
    rows = []
    for run in ordered:
        cells = []
        for name in names:
            found = run.figures(part).get(name) or {}
            value = found.get("value")
            strong = not beside and len(runs) > 1 and known(value) and value == best[name]
            interval = span(found.get("low"), found.get("high"), name)
            cells.append(Cell(figure(value, name), interval, strong))
        rows.append(Row(run.title, tuple(cells), run.series))
    users = max([(run.metrics.get(part) or {}).get("users") or 0 for run in runs])
    caption = f"Means over {whole(users)} users of the {part} part, with 95 % intervals below."
    return Table(("Run", *map(metric_title, names)), tuple(rows), caption)


def _pairs(comparison: Comparison) -> Table:
    rows = [
        Row(
            f"{pair.a} {MINUS} {pair.b}",
            (
                Cell(signed(pair.difference), signed_span(pair.low, pair.high)),
                Cell(p_value(pair.p_value).removeprefix("= ")),
                Cell(p_value(pair.p_holm).removeprefix("= ")),
                Cell("yes" if significant(pair) else "no", strong=significant(pair)),
            ),
        )
        for pair in comparison.pairs
    ]
    head = ("Pair", "Difference", "p", "p (Holm)", "More than chance?")
    caption = (
        f"Differences in {metric_title(comparison.metric)} over the same "
        f"{counted(comparison.users, 'user')}, with 95 % intervals."
    )
    return Table(head, tuple(rows), caption)


def _forest(comparison: Comparison) -> Markup:
    rows = [
        charts.Difference(
            f"{pair.a} {MINUS} {pair.b}",
            pair.difference,
            pair.low if known(pair.low) else None,
            pair.high if known(pair.high) else None,
            significant(pair),
            f"{signed(pair.difference)}, p {p_value(pair.p_holm)}",
        )
        for pair in comparison.pairs
    ]
    title = f"Differences in {metric_title(comparison.metric)} between runs"
    return charts.forest(rows, title=title)


def _across(
    runs: Sequence[ReportedRun],
    heads: dict[str, str],
    bars: dict[str, list[charts.Bar]],
    caption: str,
) -> Table:
    rows = [
        Row(
            run.title,
            tuple(_split_note(bars[name][index].shown) for name in heads),
            run.series,
        )
        for index, run in enumerate(runs)
    ]
    return Table(("Run", *heads.values()), tuple(rows), caption)


def _split_note(shown: str) -> Cell:
    text, _, interval = shown.partition(" (")
    return Cell(text, interval.removesuffix(")"))


def _order(known_names: dict[str, str], groups: Sequence[dict]) -> list[str]:
    found = {name for one in groups for name in one}
    return [n for n in known_names if n in found] + sorted(found - set(known_names))


def _most(groups: Sequence[dict], name: str) -> int:
    """The users of a slice; runs that were evaluated on the same queries all say the same."""
    return max((group.get(name) or {}).get("users") or 0 for group in groups)
