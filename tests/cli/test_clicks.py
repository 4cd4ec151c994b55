"""``--clicks``: a ranker is trained on clicks, measured and asked from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from .conftest import Call


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", 1_600_000_000 + place, int(rng.integers(1, 6)))
        for user in range(40)
        for place, item in enumerate(rng.choice(15, 10, replace=False).tolist())
    ]
    path = tmp_path / "rated.csv"
    columns = ["user_id", "item_id", "timestamp", "rating"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(path)
    return path


SMALL = ["--set", "model.dim=8", "--set", "train.epochs=1", "--quiet"]


@pytest.mark.parametrize("labels", ["ratings", "sampled"])
def test_from_training_to_a_list(labels: str, foretaste: Call, rated: Path):
    more = ["--data", rated, "--model", "sdim", "--clicks", labels, "--run", "r", *SMALL]
    trained = foretaste("train", *more, "--json")
    assert trained.code == 0, trained.err
    names = ["auc", "gauc", "log_loss", "user_auc"]
    assert list(trained.json["metrics"]) == names
    again = foretaste("evaluate", "r", "--json")
    assert again.json["metrics"] == trained.json["metrics"]
    table = foretaste("evaluate", "r", "--split", "valid").out
    assert "sdim: valid of user-time" in table and "impressions" in table
    assert all(name in table for name in names)
    assert foretaste("evaluate", "r", "--split", "user-time", "--json").json == again.json | {
        "seconds": pytest.approx(again.json["seconds"], abs=5)
    }
    listed = foretaste("recommend", "r", "--history-ids", "i1,i2", "-k", "3", "--json")
    assert len(listed.json["items"]) == 3


def test_mistakes_are_told_in_a_line(foretaste: Call, rated: Path):
    wrong = foretaste("train", "--data", rated, "--clicks", "ratings", "--run", "r", *SMALL)
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "sasrec orders a catalog" in wrong.err
    more = ["--data", rated, "--model", "din", *SMALL]
    wrong = foretaste("train", *more, "--clicks", "likes")
    assert "clicks.labels = 'likes'" in wrong.err
    for cut in ("leave-last-out", "global-time"):  # the default of lists is not that of clicks
        wrong = foretaste("train", *more, "--clicks", "ratings", "--split", cut)
        assert "[split] has no effect beside [clicks]" in wrong.err
    assert foretaste("train", *more, "--clicks", "sampled", "--run", "r").code == 0
    wrong = foretaste("evaluate", "r", "--set", "evaluate.k=5")
    assert "[evaluate] has no effect beside [clicks]" in wrong.err
    wrong = foretaste("evaluate", "r", "--split", "global-time")
    assert 'trained on "user-time"' in wrong.err


def test_ratings_that_changed_are_other_data(foretaste: Call, rated: Path):
    """They are what clicks are made of: figures before and after are not of the same labels."""
    more = ["--data", rated, "--model", "din", "--clicks", "ratings", *SMALL]
    assert foretaste("train", *more, "--run", "before").code == 0
    turned = pl.read_csv(rated).with_columns(rating=6 - pl.col("rating"))
    turned.write_csv(rated)
    for verb in ("evaluate", "before"), ("recommend", "before", "--user", "u1"):
        assert "the data has changed" in foretaste(*verb).err
    assert foretaste("train", *more, "--run", "after").code == 0
    unlike = foretaste("compare", "before", "after", "--metric", "user_auc")
    assert "differ in their data" in unlike.err
