"""The runs of a report, read once, with what is missing left empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretaste.errors import InputError
from foretaste.experiments.comparing import check_comparable
from foretaste.experiments.run_folder import RunFolder
from foretaste.reporting.palette import series_of
from foretaste.reporting.wording import known

BESIDE = ("novelty", "ild")
"""Metrics of a list that do not say whether it was right."""


@dataclass(frozen=True)
class ReportedRun:
    """A run with its name and colour in the report.

    Attributes:
        folder: where it lies.
        label: its name in the report: the folder's, or its path where names are equal.
        series: its colour.
        record: ``run.json``.
        metrics: ``metrics.json`` by part; empty before the run was evaluated.
        lists: ``samples.json``; empty when there are none.
    """

    folder: RunFolder
    label: str
    series: int
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    lists: Sequence[Mapping[str, Any]]

    @property
    def model(self) -> str:
        """The name of the recommender."""
        return str(self.record.get("model", self.label))

    @property
    def title(self) -> str:
        """The label, with the model where the label does not name it."""
        named = self.model.lower() in self.label.lower()
        return self.label if named else f"{self.label} ({self.model})"

    @property
    def done(self) -> bool:
        """Whether the run came to its end."""
        return self.record.get("status") == "done"

    def section(self, name: str) -> Mapping[str, Any]:
        """A table of ``run.json``, empty when it is missing."""
        return self.record.get(name) or {}

    def figures(self, part: str, kind: str = "metrics") -> Mapping[str, Any]:
        """``metrics``, ``lists`` or ``slices`` of a part, empty when it was not evaluated."""
        return (self.metrics.get(part) or {}).get(kind) or {}

    def value(self, part: str, metric: str) -> float | None:
        """The mean of a metric, None when it was not measured."""
        return (self.figures(part).get(metric) or {}).get("value")


def read_runs(paths: Sequence[Path | str]) -> tuple[ReportedRun, ...]:
    """Read the runs of a report.

    Raises:
        InputError: no run, one that is named twice or is no run folder, or runs of different data
            or splits.
    """
    if not paths:
        raise InputError("a report needs a run. Name one run folder or more.")
    folders = [RunFolder.open(path) for path in paths]
    check_comparable(folders)
    labels = labels_of(folders)
    return tuple(
        ReportedRun(
            folder=folder,
            label=labels[number],
            series=series_of(number),
            record=folder.record,
            metrics=folder.metrics if (folder.path / "metrics.json").exists() else {},
            lists=folder.samples if (folder.path / "samples.json").exists() else [],
        )
        for number, folder in enumerate(folders)
    )


def labels_of(folders: Sequence[RunFolder]) -> list[str]:
    """Names of the folders, or their paths where names are equal; as ``compare`` has them."""
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder.path) for folder in folders]


def part_to_report(runs: Sequence[ReportedRun]) -> str:
    """``test`` when any run was tested, else ``valid``."""
    tested = any(run.figures("test") for run in runs)
    return "test" if tested or not any(run.figures("valid") for run in runs) else "valid"


def common_metrics(runs: Sequence[ReportedRun], part: str) -> list[str]:
    """Metrics that all evaluated runs have, the one to judge by first: NDCG or a user's AUC."""
    measured = [run for run in runs if run.figures(part)]
    if not measured:
        return []
    names = [
        name
        for name in measured[0].figures(part)
        if all(known(run.value(part, name)) for run in measured)
    ]
    accuracy = [name for name in names if name.partition("@")[0] not in BESIDE]
    return sorted(accuracy, key=lambda name: not name.startswith(("ndcg@", "user_auc")))
