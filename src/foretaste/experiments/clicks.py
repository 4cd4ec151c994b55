"""Experiments on clicks: the task of a recipe, what its run says of it, and how it is measured."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl

from foretaste.data.clicks import ClickTask, rated_clicks, sampled_clicks
from foretaste.data.dataset import Dataset
from foretaste.errors import InputError
from foretaste.experiments.evaluating import Evaluation, Part, as_json, interval_of
from foretaste.experiments.recipe import ClicksSection
from foretaste.metrics import click_intervals, user_clicks
from foretaste.recommenders.core.ranker import Ranker


def click_task(dataset: Dataset, section: ClicksSection) -> ClickTask:
    """The task that a recipe asks for.

    Raises:
        InputError: the log has no ratings, nothing is left of a part, or test has one label only.
    """
    options: dict[str, Any] = section.model_dump(include={"valid_share", "test_share"})
    options["kind"] = section.cut
    if section.labels == "ratings":
        rated = section.model_dump(include={"threshold", "history"})
        task = rated_clicks(dataset, **rated, **options)
    else:
        task = sampled_clicks(dataset, negatives=section.negatives, **options)
    if len(np.unique(task.test.labels)) == 1:
        label = "a click" if task.test.labels[0] else "no click"
        raise InputError(
            f"{dataset.name}: every impression of the test part is {label}, so there is no AUC. "
            "Change clicks.threshold or clicks.test_share."
        )
    return task


def describe_clicks(task: ClickTask, section: ClicksSection) -> dict[str, Any]:
    """Sizes of the parts, for ``run.json``."""
    return {
        "kind": section.cut,
        "train_impressions": len(task.train),
        "vocabulary": len(task.catalog),
        "valid_queries": len(np.unique(task.valid.users)),
        "test_queries": len(np.unique(task.test.users)),
        "notes": [*task.notes, str(task)],
    }


def evaluate_clicks(ranker: Ranker, task: ClickTask, part: Part, cut: str) -> Evaluation:
    """Judge every impression of ``part`` and measure.

    Args:
        ranker: fitted on ``task``.
        task: where the impressions come from.
        part: ``valid`` or ``test``.
        cut: how the task was cut, to be told.

    Returns:
        AUC, GAUC and log-loss over impressions, and ``user_auc``, the mean over users. In
        ``per_query`` there is a row for every user, ``history_length`` being the events before
        their last impression; ``user_auc`` is null for a user without both labels.

    Raises:
        InputError: the part is empty or has one label only, or the model is of another catalog.
    """
    asked = task.valid if part == "valid" else task.test
    if len(np.unique(asked.labels)) < 2:
        what = "one label only" if len(asked) else "no impressions"
        raise InputError(f"the {part} part of this click task has {what}, so there is no AUC.")
    begin = time.perf_counter()
    found = ranker.click_probabilities(task, asked)
    seconds = time.perf_counter() - begin
    whole = click_intervals(asked.labels, found, asked.users)
    own = user_clicks(asked.labels, found, asked.users)
    metrics = {name: as_json(interval) for name, interval in whole._asdict().items()}
    metrics["user_auc"] = interval_of(own.auc)
    summary = {
        "model": ranker.name,
        "split": cut,
        "part": part,
        "users": len(own.users),
        "impressions": len(asked),
        "seconds": seconds,
        "metrics": metrics,
        "lists": {},
        "slices": {"users": {}, "items": {}},
    }
    known = np.zeros(len(task.users), np.int64)
    np.maximum.at(known, asked.users, asked.ends)
    columns = {
        "part": pl.repeat(part, len(own.users), eager=True),
        "user_id": task.users[own.users],
        "history_length": known[own.users],
        "user_auc": own.auc,
        "user_log_loss": own.log_loss,
    }
    return Evaluation(summary, pl.DataFrame(columns))
