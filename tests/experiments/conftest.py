"""A small log and recipes on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foretaste.experiments.recipe import Recipe


@pytest.fixture(scope="session")
def log(tmp_path_factory) -> Path:
    """A CSV of 200 users who walk through a ring of 30 items, now and then jumping."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(200):
        item = int(rng.integers(30))
        for step in range(int(rng.integers(5, 20))):
            item = int(rng.integers(30)) if rng.random() < 0.1 else (item + 1) % 30
            rows.append((f"u{user}", f"i{item}", 1_600_000_000 + 1_000 * step + user))
    path = tmp_path_factory.mktemp("data") / "ring.csv"
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_csv(path)
    return path


@pytest.fixture
def recipe(log) -> Recipe:
    """A tiny SASRec on the ring."""
    return Recipe.build(
        {
            "data": {"source": str(log)},
            "model": {"name": "sasrec", "dim": 16, "max_length": 12, "dropout": 0.3},
            "train": {"epochs": 6, "batch_tokens": 400, "warmup_steps": 5},
            "run": {"threads": 1},
        }
    )
