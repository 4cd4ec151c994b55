"""Figures that benchmarks keep: by seed, averaged, packed and got back."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def kept(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("kept")


def test_means_are_over_the_seeds_asked_for(kept, tmp_path):
    arm = kept.Kept(tmp_path / "set", "both, kept")
    kept.Kept(tmp_path / "set", "both").save(7, {"ndcg@10": np.ones(2), "bytes": 1})
    for seed, first in ((0, 0.0), (1, 1.0), (12, 5.0)):
        arm.save(seed, {"ndcg@10": np.array([first, 2.0]), "bytes": 10 * seed})
    assert arm.numbers == [0, 1, 12]  # and none of the arm whose name begins alike
    np.testing.assert_array_equal(arm.values("ndcg@10"), [2, 2])
    np.testing.assert_array_equal(arm.values("ndcg@10", {0, 1}), [0.5, 2])
    assert arm.fact("bytes") == pytest.approx(130 / 3)
    assert arm.fact("seconds") is None


def test_seeds_may_be_left_out(kept, tmp_path):
    for seed in range(3):
        kept.Kept(tmp_path, "both").save(seed, {"ndcg@10": np.full(2, seed)})
    arm = kept.Kept(tmp_path, "both", {1})
    assert arm.numbers == [0, 2]
    np.testing.assert_array_equal(arm.values("ndcg@10"), [1, 1])


def test_intervals_are_over_users_and_means_over_questions(kept):
    rng = np.random.default_rng(0)
    values, users = rng.random(600), np.arange(600)
    alone = kept.mean_of_users(values, users)
    every = kept.mean_of_users(np.repeat(values, 9), np.repeat(users, 9))
    assert every == pytest.approx(alone)  # the same nine times tells nothing more
    some = np.sort(rng.integers(0, 50, 600))  # users ask more or fewer
    assert kept.mean_of_users(values, some).value == pytest.approx(values.mean())
    assert kept.of_users(values, some).mean() == pytest.approx(values.mean())
    assert len(kept.of_users(values, some)) == 50
    constant = kept.mean_of_users(np.full(600, 0.5), some)
    assert tuple(constant) == pytest.approx((0.5, 0.5, 0.5))
    other = values - 0.1 + 0.01 * rng.standard_normal(600)
    told = kept.difference_of_users(values, other, some)
    assert told.difference == pytest.approx(0.1, abs=0.01)
    assert told.users == 50


def test_an_archive_gives_back_what_is_missing_and_nothing_else(kept, tmp_path):
    runs, archive = tmp_path / "runs", tmp_path / "table.zip"
    kept.unpack(archive, runs)  # there is none yet
    for seed in (0, 1):
        kept.Kept(runs / "set", "full").save(seed, {"ndcg@10": np.full(3, seed)})
    kept.pack(runs, archive)
    first = archive.read_bytes()
    kept.pack(runs, archive)
    assert archive.read_bytes() == first
    other = tmp_path / "elsewhere"
    kept.Kept(other / "set", "full").save(0, {"ndcg@10": np.full(3, 9)})
    kept.unpack(archive, other)
    mine = kept.Kept(other / "set", "full")
    assert mine.one(0)["ndcg@10"].tolist() == [9, 9, 9]  # what is there is newer
    assert mine.one(1)["ndcg@10"].tolist() == [1, 1, 1]
