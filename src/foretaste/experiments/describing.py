"""What a run folder says about its data, split, training and lists, as plain JSON values."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from foretaste.data.dataset import Dataset
from foretaste.data.embedded_sets import EMBEDDED_SETS
from foretaste.data.leakage import LeakageReport
from foretaste.data.learnt_from import LearntFrom
from foretaste.data.split import Split
from foretaste.experiments.recipe import DataSection, Recipe
from foretaste.metrics import user_slices
from foretaste.recommenders.core.base import Exclude, Recommender
from foretaste.recommenders.core.results import FitReport

PERIODS = 60
SAMPLES = 6
SHOWN_HISTORY = 8


def describe_data(dataset: Dataset, section: DataSection) -> dict[str, Any]:
    """Sizes, time span, notes of reading, and two histograms."""
    times = dataset.sequences.times if dataset.has_time else None
    licences = {known.name: known.licence for known in EMBEDDED_SETS}
    bands = user_slices(dataset.sequences.lengths)
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "users": len(dataset.users),
        "items": len(dataset.catalog),
        "interactions": dataset.interactions,
        "first_time_ms": None if times is None else int(times.min()),
        "last_time_ms": None if times is None else int(times.max()),
        "notes": list(dataset.notes),
        "history_lengths": {name: int(mask.sum()) for name, mask in bands.items() if mask.any()},
        "events_by_period": [] if times is None else _events_by_period(times),
        "licence": licences.get(section.source),
    }


def describe_split(split: Split) -> dict[str, Any]:
    """Sizes, cuts, what train is, and the share of test targets that no model can know."""
    targets = split.test.targets.items
    train = LearntFrom.of("train", split.catalog, split.train)
    return {
        "kind": split.kind,
        "cuts_ms": None if split.cuts is None else list(split.cuts),
        "train_interactions": split.train.events,
        "train": train.to_json(),
        "vocabulary": split.items,
        "valid_queries": len(split.valid),
        "test_queries": len(split.test),
        "unseen_target_share": float((targets < 0).mean()),
        "notes": list(split.notes),
    }


def describe_leakage(report: LeakageReport) -> dict[str, Any]:
    """The checks made and what they found."""
    findings = [
        {"name": f.name, "severity": f.severity, "count": f.count, "message": f.message}
        for f in report.findings
    ]
    return {"checks": list(report.checks), "findings": findings}


def describe_fit(fit: FitReport, recipe: Recipe) -> dict[str, Any]:
    """The learning curve and why it ended."""
    return {
        "seconds": fit.seconds,
        "best_epoch": fit.best_epoch,
        "stopped": fit.stopped,
        "metric": recipe.train.get("metric")
        if recipe.clicks is None
        else recipe.model["click_metric"],
        "epochs": [epoch._asdict() for epoch in fit.epochs],
        "details": fit.details,
        "notes": list(fit.notes),
    }


def sample_lists(
    recommender: Recommender, split: Split, exclude: Exclude, k: int = 10
) -> list[dict[str, Any]]:
    """A few test queries with their lists, the same queries for every model on a split.

    ``exclude`` is that of the evaluation, so that the lists are those that the figures are of.
    """
    queries = split.test
    lengths = queries.histories.lengths
    asked = np.flatnonzero(lengths >= min(5, lengths.max()))
    chosen = asked[np.linspace(0, len(asked) - 1, min(SAMPLES, len(asked))).astype(int)]
    histories, targets = queries.histories.take(chosen), queries.targets.take(chosen)
    lists = recommender.recommend(histories, k, exclude=exclude)
    titles = split.catalog.titles
    return [
        {
            "user_id": split.users[int(queries.users[query])],
            "history": [titles[item] for item in histories[row][-SHOWN_HISTORY:]],
            "targets": [titles[item] for item in targets[row] if item >= 0],
            "recommended": [
                {**line._asdict(), "hit": bool(item in targets[row])}
                for line, item in zip(lists[row], lists.items[row], strict=False)
            ],
        }
        for row, query in enumerate(chosen)
    ]


def _events_by_period(times: np.ndarray) -> list[list[Any]]:
    """Events in at most ``PERIODS`` equal stretches of time, each with its first day."""
    counts, edges = np.histogram(times, bins=PERIODS)
    days = pl.Series(edges[:-1].astype(np.int64)).cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%d")
    return [[day, int(count)] for day, count in zip(days, counts, strict=True)]
