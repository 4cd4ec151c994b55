"""The benchmark of collective keys in rankers: its controls, its restart, its table."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def rankers(monkeypatch) -> Any:
    """The script, with one short epoch for each fit."""
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("collectivekv_rankers")
    one = {"epochs": 1, "patience": 0, "min_epochs": 0, "batch_tokens": 400}
    monkeypatch.setattr(script, "TRAIN", one)
    monkeypatch.setattr(script, "ON", one)
    return script


@pytest.fixture
def ratings(tmp_path) -> Path:
    """40 users who like even items and have rated some."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", 1_600_000_000 + 60 * place, 5.0 - 3.0 * (item % 2))
        for user in range(40)
        for place, item in enumerate(rng.choice(60, 30, replace=False).tolist())
    ]
    names = ["user_id", "item_id", "timestamp", "rating"]
    pl.DataFrame(rows, names, orient="row").write_parquet(tmp_path / "tiny.parquet")
    return tmp_path / "tiny.parquet"


def run(script: Any, monkeypatch, *options: str) -> str:
    monkeypatch.setattr(sys, "argv", ["collectivekv_rankers.py", *options])
    script.main()
    return Path(options[options.index("--out") + 1]).read_text()


def test_bytes_restart_and_table(rankers, ratings, tmp_path, monkeypatch):
    few = ["full", "both", "pool only", "low-rank only, no fewer bytes", "int8 of the full width"]
    options = ["--data", str(ratings), "--models", "din", "--runs", str(tmp_path / "runs")]
    options += ["--out", str(tmp_path / "table.md"), "--arms", *few, "--seeds", "0"]
    table = run(rankers, monkeypatch, *options)
    kept = sorted((tmp_path / "runs" / "tiny").glob("*.npz"))
    assert len(kept) == 6  # and the one that they start from
    bytes_of = {}
    for line in table.splitlines()[4:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) > 5 and cells[0] == "tiny":
            bytes_of[cells[2]] = int(cells[4])
    assert bytes_of == {
        "full, from nothing": 1_024,
        "full": 1_024,
        "both": 6,
        "pool only": 2,
        "low-rank only, no fewer bytes": 8,
        "int8 of the full width": 256,
        "item number and rating, keys looked up (no loss)": 2,
    }
    written = [path.stat().st_mtime_ns for path in kept]
    assert run(rankers, monkeypatch, *options, "1") != table  # another seed, the first one kept
    assert [path.stat().st_mtime_ns for path in kept] == written
    assert len(list((tmp_path / "runs" / "tiny").glob("*.npz"))) == 12


def test_a_log_without_ratings_gets_negatives(rankers, ratings, tmp_path):
    pl.read_parquet(ratings).drop("rating").write_parquet(tmp_path / "plain.parquet")
    source = rankers.load(f"{tmp_path / 'plain.parquet'},2", tmp_path)
    assert source.name == "plain, sampled negatives"
    assert source.task.levels is None
    assert source.task.train.labels.mean() == pytest.approx(0.2)
    rated = rankers.load(f"{ratings},,5", tmp_path)
    assert rated.name == "tiny" and rated.task.levels is not None


def test_the_store_gives_back_the_bytes_of_every_user(rankers):
    records = np.random.default_rng(0).integers(0, 256, (3, 5, 6)).astype(np.uint8)
    lengths = np.array([5, 1, 3])
    held, back = rankers.through_a_store(records, lengths, 6)
    for row, count in enumerate(lengths):
        np.testing.assert_array_equal(back[row, :count], records[row, :count])
        assert not back[row, count:].any()
    assert held > 6 * lengths.sum()
