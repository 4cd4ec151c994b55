"""Comparing runs user by user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import polars as pl

from foretaste.errors import InputError
from foretaste.experiments.evaluating import Part
from foretaste.experiments.run_folder import RunFolder
from foretaste.metrics import bootstrap_mean, holm, paired_difference
from foretaste.suggesting import nearest


class Score(NamedTuple):
    """A run's mean over the users of the comparison, with its 95 % interval."""

    run: str
    model: str
    value: float
    low: float
    high: float


class Pair(NamedTuple):
    """``a`` minus ``b`` over the same users, with 95 % interval.

    ``p_value`` is of the sign-flip test, ``p_holm`` corrected for all pairs of the comparison.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    users: int


@dataclass(frozen=True)
class Comparison:
    """Runs side by side on one metric.

    Attributes:
        metric: what is compared.
        part: ``valid`` or ``test``.
        users: how many are in the comparison; the same ones for every run.
        rows: runs, best first.
        pairs: every pair of runs, the better run first.
    """

    metric: str
    part: Part
    users: int
    rows: tuple[Score, ...]
    pairs: tuple[Pair, ...]


def compare(
    folders: Sequence[Path | str | RunFolder], *, metric: str = "ndcg@10", part: Part = "test"
) -> Comparison:
    """Compare finished runs on the same data and split, paired by user.

    Args:
        folders: two or more run folders.
        metric: one that all runs have measured.
        part: ``valid`` or ``test``.

    Raises:
        InputError: when the runs are of different data or splits, or the metric was not measured.
    """
    runs = [one if isinstance(one, RunFolder) else RunFolder.open(one) for one in folders]
    if len(runs) < 2:
        raise InputError("a comparison needs two runs or more. Name their folders.")
    check_comparable(runs)
    labels = _labels(runs)
    frames = [_values(run, label, metric, part) for run, label in zip(runs, labels, strict=True)]
    table = frames[0]
    for frame in frames[1:]:
        table = table.join(frame, on="user_id", how="inner", maintain_order="left")
    models = dict(zip(labels, (run.record["model"] for run in runs), strict=True))
    rows = [
        Score(label, models[label], *bootstrap_mean(table[label].to_numpy())) for label in labels
    ]
    rows.sort(key=lambda row: -row.value)
    return Comparison(metric, part, table.height, tuple(rows), _pairs(table, rows))


def check_comparable(runs: Sequence[RunFolder]) -> None:
    """Raise InputError unless the runs are of the same data, cut in the same way."""
    facts = {
        "data": [run.record["data"]["fingerprint"] for run in runs],
        "split": [_split_of(run) for run in runs],
        "masking of seen items": [run.recipe.get("evaluate", {}).get("exclude") for run in runs],
    }
    for what, values in facts.items():
        for run, value in zip(runs, values, strict=True):
            if value != values[0]:
                raise InputError(
                    f"{runs[0].path} and {run.path} differ in their {what}, so their figures "
                    "cannot be compared. Train them on the same data and split."
                )


def _split_of(run: RunFolder) -> dict[str, object]:
    return {key: value for key, value in run.recipe["split"].items() if key != "refit"}


def _labels(runs: Sequence[RunFolder]) -> list[str]:
    """The folders' names, or their paths where names are equal."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _values(run: RunFolder, label: str, metric: str, part: Part) -> pl.DataFrame:
    frame = run.per_query(part)
    if metric not in frame.columns:
        measured = [name for name in frame.columns if "@" in name]
        raise InputError(f'{run.path}: has not measured "{metric}"{nearest(metric, measured)}')
    return frame.select("user_id", pl.col(metric).alias(label))


def _pairs(table: pl.DataFrame, rows: Sequence[Score]) -> tuple[Pair, ...]:
    found = [
        (a.run, b.run, paired_difference(table[a.run].to_numpy(), table[b.run].to_numpy()))
        for a, b in combinations(rows, 2)
    ]
    corrected = holm([difference.p_value for _, _, difference in found])
    return tuple(
        Pair(a, b, d.difference, d.low, d.high, d.p_value, p_holm, d.users)
        for (a, b, d), p_holm in zip(found, corrected, strict=True)
    )
