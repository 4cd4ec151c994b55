"""How the runs learnt: loss and validation over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from foretaste.reporting import charts
from foretaste.reporting.runs import ReportedRun
from foretaste.reporting.tables import Cell, Row, Table
from foretaste.reporting.wording import NOTHING, duration, figure, known, metric_title, whole


class LossCurve(NamedTuple):
    """The training loss of one run; losses of different models are not on one scale."""

    title: str
    series: int
    chart: Markup


class Learning(NamedTuple):
    """Curves of all runs that have epochs, and a sentence for each that has none."""

    valid: Markup
    shown: tuple[ReportedRun, ...]
    losses: tuple[LossCurve, ...]
    table: Table | None
    notes: tuple[str, ...]


def learning(runs: Sequence[ReportedRun]) -> Learning:
    """The learning curves of the runs; the best epoch is marked where there was validation."""
    trained = [run for run in runs if run.section("fit").get("epochs")]
    validated = [line for run in trained if (line := _valid_line(run)).points]
    names = {str(name) for run in trained if (name := run.section("fit").get("metric"))}
    named = metric_title(names.pop()) if len(names) == 1 else "validation metric"
    chart = charts.lines(validated, title=f"{named} on validation after each epoch")
    losses = [
        LossCurve(run.title, run.series, charts.lines([line], title=f"Training loss, {run.title}"))
        for run in trained
        if (line := _loss_line(run)).points
    ]
    with_lines = {line.series for line in validated}
    return Learning(
        valid=chart,
        shown=tuple(run for run in trained if run.series in with_lines),
        losses=tuple(losses),
        table=_table(trained) if trained else None,
        notes=tuple(_without_epochs(run) for run in runs if run not in trained),
    )


def _valid_line(run: ReportedRun) -> charts.Line:
    fit = run.section("fit")
    points = _points(run, "valid")
    mark = next((point for point in points if point[0] == fit.get("best_epoch")), None)
    return charts.Line(run.title, points, run.series, mark)


def _loss_line(run: ReportedRun) -> charts.Line:
    return charts.Line(run.title, _points(run, "loss"), run.series)


def _points(run: ReportedRun, name: str) -> tuple[tuple[float, float], ...]:
    epochs = run.section("fit")["epochs"]
    return tuple((one["epoch"], one[name]) for one in epochs if known(one.get(name)))


def _table(runs: Sequence[ReportedRun]) -> Table:
    rows = []
    for run in runs:
        fit = run.section("fit")
        epochs = fit["epochs"]
        best = next((one for one in epochs if one["epoch"] == fit.get("best_epoch")), {})
        cells = (
            Cell(whole(len(epochs))),
            Cell(NOTHING if fit.get("best_epoch") is None else whole(fit["best_epoch"])),
            Cell(figure(best.get("valid"))),
            Cell(figure(epochs[-1].get("loss"))),
            Cell(duration(sum(one.get("seconds") or 0 for one in epochs) / len(epochs))),
            Cell(str(fit.get("stopped") or NOTHING)),
        )
        rows.append(Row(run.title, cells, run.series))
    head = ("Run", "Epochs", "Best epoch", "Valid at best", "Last loss", "Per epoch", "Ended by")
    return Table(head, tuple(rows), "What training came to.")


def _without_epochs(run: ReportedRun) -> str:
    fit = run.section("fit")
    if not fit:
        return f"{run.title} has not come to the end of its training."
    return f"{run.title} does not learn in epochs; it was fitted in {duration(fit.get('seconds'))}."
