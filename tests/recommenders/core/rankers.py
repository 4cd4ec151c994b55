"""Small rankers, and the log of which they learn a rule that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from foretaste.data.clicks import ClickTask, Impressions, rated_clicks
from foretaste.data.dataset import Dataset
from foretaste.data.interactions import ColumnGuess, Interactions
from foretaste.recommenders.core.ranker import Ranker
from foretaste.recommenders.core.registry import find

RANKERS = ["din", "sim", "sdim"]
COLLECTIVE = {"user_dim": 4, "pool_size": 8}
KINDS: list[dict[str, Any]] = [
    {},
    {"attention": "collective", "collective": COLLECTIVE},
    {"attention": "collective", "collective": {**COLLECTIVE, "user_type": "fp16"}},
    {"attention": "collective", "collective": {"user_dim": 4, "pool_size": 0}},
    {"attention": "collective", "collective": {"user_dim": 0, "pool_size": 300}},
]
every_ranker = pytest.mark.parametrize("name", RANKERS)
Items = Callable[[int], list[str]]


def made(name: str, **parameters: Any) -> Ranker:
    train = {"learning_rate": 1e-2, "batch_tokens": 300, "weight_decay": 0.0, "warmup_steps": 10}
    train |= {"epochs": 8, "min_epochs": 0, **parameters.pop("train", {})}
    settings = {"dim": 16, "hidden": 16, "max_length": 20, "dropout": 0.1, "train": train}
    model = find(name)(**{**settings, **parameters})
    assert isinstance(model, Ranker)
    return model


def dataset(rows: list[tuple[str, str, int, float]], categories: Items | None = None) -> Dataset:
    schema = {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Int64,
        "rating": pl.Float64,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    known = None
    if categories is not None:
        ids = sorted({row[1] for row in rows})
        known = pl.DataFrame(
            {"item_id": ids, "categories": [categories(int(i[1:])) for i in ids]},
            schema={"item_id": pl.String, "categories": pl.List(pl.String)},
        )
    log = Interactions(
        frame, known, "log", ColumnGuess("user_id", "item_id", "timestamp", "rating")
    )
    return Dataset.from_interactions(log)


def group_of(item: int) -> list[str]:
    return [f"g{item // 10}"]


def same_group() -> ClickTask:
    """An item is clicked if and only if it is of the group of the items clicked before."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(250):
        items = rng.choice(20, 12, replace=False)
        own = user % 2
        rows += [
            (f"u{user}", f"i{item:02}", time, 5.0 if item // 10 == own else 1.0)
            for time, item in enumerate(items.tolist())
        ]
    return rated_clicks(dataset(rows, group_of))


def known(task: ClickTask, part: Impressions) -> Impressions:
    """Impressions of which something can be known."""
    return part.take((part.ends > 0) & (part.items >= 0))
