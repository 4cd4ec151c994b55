"""Figures of an evaluation in the terminal."""

from __future__ import annotations

from typing import Any

from foretaste.cli.display import interval, print_table, say


def print_evaluation(summary: dict[str, Any]) -> None:
    """Metrics with intervals, list figures and slices of ``metrics.json``."""
    if "impressions" in summary:
        asked = f"{summary['impressions']:,} impressions"
    else:
        asked = "seen items left out" if summary["exclude"] == "seen" else "seen items allowed"
    title = (
        f"{summary['model']}: {summary['part']} of {summary['split']}, "
        f"{summary['users']:,} users, {asked}"
    )
    rows = [[name, interval(figure)] for name, figure in summary["metrics"].items()]
    rows += [
        [name, f"{value:.4f}"] for name, value in summary["lists"].items() if value is not None
    ]
    print_table(title, ["metric", "mean (95 % interval)"], rows)
    slices = {name: of for name, of in summary["slices"]["users"].items() if of["users"]}
    first = next((metric for of in slices.values() for metric in of["metrics"]), None)
    if first is None:  # clicks are not sliced
        return
    shown = [
        f"{name}: {of['metrics'][first]['value']:.4f} ({of['users']:,} users)"
        for name, of in slices.items()
    ]
    say(f"{first} by events in the history: " + ", ".join(shown))
