"""Comparing runs user by user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from foretaste.errors import InputError
from foretaste.experiments.evaluating import Part
from foretaste.experiments.run_folder import RunFolder
from foretaste.metrics import bootstrap_mean, holm, paired_difference
from foretaste.suggesting import nearest

LESS_IS_BETTER = ("log_loss", "user_log_loss")


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
        left_out: users for whom the metric does not exist in every run, such as the diversity of
            a list without categories.
    """

    metric: str
    part: Part
    users: int
    rows: tuple[Score, ...]
    pairs: tuple[Pair, ...]
    left_out: int = 0


def compare(
    folders: Sequence[Path | str | RunFolder], *, metric: str = "ndcg@10", part: Part = "test"
) -> Comparison:
    """Compare finished runs on the same data and split, paired by user.

    Args:
        folders: two or more run folders.
        metric: one that all runs have measured.
        part: ``valid`` or ``test``.

    Raises:
        InputError: when a run is named twice, the runs are of different data or splits, or the
            metric was not measured.
    """
    runs = [one if isinstance(one, RunFolder) else RunFolder.open(one) for one in folders]
    if len(runs) < 2:
        raise InputError("a comparison needs two runs or more. Name their folders.")
    check_comparable(runs)
    labels = _labels(runs)
    # Columns have the numbers of the runs: a folder may be called like any column.
    frames = [_values(run, str(n), metric, part) for n, run in enumerate(runs)]
    table = frames[0]
    for frame in frames[1:]:
        table = table.join(frame, on="user_id", how="inner", maintain_order="left")
    users = pl.concat([frame["user_id"] for frame in frames]).n_unique()
    table = table.drop_nulls()
    if table.is_empty():
        raise InputError(
            f"no user of the {part} part has a {metric} in every run. Choose another --metric."
        )
    values = {label: table[str(n)].to_numpy() for n, label in enumerate(labels)}
    rows = [
        Score(label, str(run.record.get("model", label)), *bootstrap_mean(values[label]))
        for label, run in zip(labels, runs, strict=True)
    ]
    rows.sort(key=lambda row: row.value, reverse=metric not in LESS_IS_BETTER)
    pairs = _pairs(values, [row.run for row in rows])
    return Comparison(metric, part, table.height, tuple(rows), pairs, users - table.height)


def check_comparable(runs: Sequence[RunFolder]) -> None:
    """Raise InputError unless the runs are different ones of the same data, cut in the same way."""
    _refuse_twice(runs)
    facts = {
        "split": [_split_of(run) for run in runs],
        "data": [run.fingerprint for run in runs],
        "masking of seen items": [_exclude_of(run) for run in runs],
    }
    for what, values in facts.items():
        for run, value in zip(runs, values, strict=True):
            if value != values[0]:
                raise InputError(
                    f"{runs[0].path} and {run.path} differ in their {what}, so their figures "
                    "cannot be compared. Train them on the same data and split."
                )


def _refuse_twice(runs: Sequence[RunFolder]) -> None:
    seen = set()
    for run in runs:
        place = run.path.resolve()
        if place in seen:
            raise InputError(f"{run.path}: named twice. Name every run once.")
        seen.add(place)


def _split_of(run: RunFolder) -> dict[str, object]:
    section = run.recipe.get("clicks") or run.recipe.get("split")
    if not isinstance(section, dict):
        raise InputError(f"{run.path / 'recipe.toml'}: has no [split]. Train again.")
    return {key: value for key, value in section.items() if key != "refit"}


def _exclude_of(run: RunFolder) -> object:
    section = run.recipe.get("evaluate")
    return section.get("exclude") if isinstance(section, dict) else None


def _labels(runs: Sequence[RunFolder]) -> list[str]:
    """The folders' names, or their paths where names are equal."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _values(run: RunFolder, column: str, metric: str, part: Part) -> pl.DataFrame:
    """``user_id`` and the metric as ``column``, null where it does not exist."""
    frame = run.per_query(part)
    if frame.is_empty():
        raise InputError(
            f"{run.path}: has no figures of the {part} part (with split.refit there is no valid "
            "part). Choose the other --split."
        )
    measured = [name for name in frame.columns if name not in ("user_id", "history_length")]
    if metric not in measured:
        raise InputError(f'{run.path}: has not measured "{metric}"{nearest(metric, measured)}')
    return frame.select("user_id", frame[metric].fill_nan(None).alias(column))


def _pairs(values: Mapping[str, np.ndarray], best_first: Sequence[str]) -> tuple[Pair, ...]:
    found = [
        (a, b, paired_difference(values[a], values[b])) for a, b in combinations(best_first, 2)
    ]
    corrected = holm([difference.p_value for _, _, difference in found])
    return tuple(
        Pair(a, b, d.difference, d.low, d.high, d.p_value, p_holm, d.users)
        for (a, b, d), p_holm in zip(found, corrected, strict=True)
    )
