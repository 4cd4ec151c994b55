"""What a recommender's answers to the queries of a split are worth, with intervals."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from foretaste.data.split import Queries, Split
from foretaste.errors import InputError
from foretaste.experiments.recipe import EvaluateSection
from foretaste.metrics import Interval, bootstrap_mean, item_slices, user_slices
from foretaste.progress import Progress
from foretaste.recommenders.core.base import Recommender
from foretaste.recommenders.core.ranking import Answers, rank_queries

Part = Literal["valid", "test"]
NOTHING = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Evaluation:
    """The figures of one part of a split.

    Attributes:
        summary: what ``metrics.json`` holds: metrics with 95 % intervals, list metrics, slices.
        per_query: ``part``, ``user_id``, ``history_length`` and one column for each metric.
    """

    summary: dict[str, Any]
    per_query: pl.DataFrame


def evaluate(
    recommender: Recommender,
    split: Split,
    part: Part = "test",
    section: EvaluateSection | None = None,
    *,
    progress: Progress | None = None,
) -> Evaluation:
    """Rank the whole catalog for every query of ``part`` and measure.

    Args:
        recommender: fitted on ``split``.
        split: where the queries come from.
        part: ``valid`` or ``test``.
        section: which metrics, how long the lists, whether seen items are left out.
        progress: who is told.

    Raises:
        InputError: when the part has no queries or the model is of another catalog.
    """
    section = section or EvaluateSection()
    queries: Queries = getattr(split, part)
    _check(recommender, split, queries, part)
    begin = time.perf_counter()
    answers = rank_queries(
        recommender,
        queries,
        section.metrics,
        exclude=section.exclude,
        list_length=section.k,
        progress=progress,
    )
    seconds = time.perf_counter() - begin
    lengths = queries.histories.lengths
    summary = {
        "model": recommender.name,
        "split": split.kind,
        "part": part,
        "exclude": section.exclude,
        "users": len(queries),
        "seconds": seconds,
        "metrics": {name: interval_of(values) for name, values in answers.metrics.items()},
        "lists": {name: _number(value) for name, value in answers.lists.items()},
        "slices": {
            "users": _user_slices(answers, lengths, section),
            "items": _item_slices(answers, queries, split, section.k),
        },
    }
    frame = pl.DataFrame({"user_id": split.users[queries.users], "history_length": lengths})
    columns = [pl.Series(name, values) for name, values in answers.metrics.items()]
    frame = frame.select(pl.lit(part).alias("part"), pl.all()).with_columns(columns)
    return Evaluation(summary, frame)


def _check(recommender: Recommender, split: Split, queries: Queries, part: str) -> None:
    if not len(queries):
        raise InputError(f"the {part} part of this split has no queries.")
    if recommender.catalog is None or recommender.catalog.item_ids != split.catalog.item_ids:
        raise InputError(
            "the model was trained on another catalog than this split has. "
            "Evaluate it on the data and split of its own run."
        )


def interval_of(values: np.ndarray) -> dict[str, float | None]:
    """The mean over the queries for which the value exists, with its 95 % interval."""
    values = values[~np.isnan(values)]
    return as_json(bootstrap_mean(values) if len(values) else NOTHING)


def as_json(interval: Interval) -> dict[str, float | None]:
    """``value``, ``low`` and ``high``, null where they do not exist."""
    return {name: _number(end) for name, end in interval._asdict().items()}


def _number(value: float) -> float | None:
    """JSON has no NaN: what does not exist is null."""
    return None if np.isnan(value) else float(value)


def _user_slices(answers: Answers, lengths: np.ndarray, section: EvaluateSection) -> dict[str, Any]:
    shown = section.metrics[:2]
    return {
        name: {
            "users": int(mask.sum()),
            "metrics": {metric: interval_of(answers.metrics[metric][mask]) for metric in shown},
        }
        for name, mask in user_slices(lengths).items()
    }


def _item_slices(answers: Answers, queries: Queries, split: Split, k: int) -> dict[str, Any]:
    masks = item_slices(queries.targets.items, split.popularity)
    found = answers.positions.listed(k)  # [T], expected under ties, as the metrics are
    return {
        name: {
            "targets": int(mask.sum()),
            f"recall@{k}": float(found[mask].mean()) if mask.any() else None,
        }
        for name, mask in masks.items()
    }
