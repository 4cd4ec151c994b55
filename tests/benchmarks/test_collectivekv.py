"""The benchmark of collective keys: what a full cache would take, figures of earlier runs."""

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
def script(monkeypatch) -> Any:
    """The script, with one short epoch for each fit."""
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("collectivekv")
    one = {"epochs": 1, "patience": 0, "min_epochs": 0, "batch_tokens": 400}
    monkeypatch.setattr(script, "TRAIN", one)
    monkeypatch.setattr(script, "ON", one)
    return script


def test_bytes_of_every_form(script, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", 60 * place)
        for user in range(40)
        for place, item in enumerate(rng.choice(300, 30, replace=False).tolist())
    ]
    names = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows, names, orient="row").write_parquet(tmp_path / "tiny.parquet")
    options = ["--data", str(tmp_path / "tiny.parquet"), "--models", "sasrec", "--arms", "0", "1"]
    options += ["6", "--seeds", "0", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(
        sys, "argv", ["collectivekv.py", *options, "--out", str(tmp_path / "table.md")]
    )
    script.main()
    table = importlib.import_module("peers.driving").read_table(tmp_path / "table.md")
    rows = {row["keys and values"]: row for row in table}
    assert list(rows) == ["full", script.LOOKED_UP, "both", "random router"]
    found = {name: (row["bytes/event"], row["of full fp32"]) for name, row in rows.items()}
    assert found["full"] == ("2052", "100.20%")
    assert found[script.LOOKED_UP] == ("1028", "50.20%")
    assert found["both"] == found["random router"] == ("16", "0.78%")
    assert rows["both"]["of full, first layer looked up"] == "1.56%"
    held, pools = rows["both"]["bytes/user + part of pools"].split(" + ")
    assert int(pools) == round(4 * 2 * 2 * 256 * 122 / 40)
    # Of 30 events the last is asked for; the store has something besides the records.
    assert 29 * 16 < int(held) < 29 * 16 + 200
    assert rows["both"]["minus full, HR@10"] and not rows["full"]["minus full, HR@10"]


def test_runs_of_before_give_the_same_table(script, tmp_path):
    """They say of the store only what an event takes in it."""
    kept = importlib.import_module("kept")
    hits = np.arange(50) % 5 == 0
    facts: dict[str, Any] = {"seconds": 1.0, "ndcg@10": hits * 0.5, "hr@10": hits * 1.0}
    for name, record in (("full", 2052), (script.FROZEN, 16)):
        of_store = {"record_bytes": record, "held_per_event": record + script.STATE / 25}
        kept.Kept(tmp_path / "old", f"sasrec-{name}").save(0, facts | of_store)
        new = of_store | {"events_per_user": 25.0}
        kept.Kept(tmp_path / "new", f"sasrec-{name}").save(0, facts | new)
    old, new = (script.rows_of(data, "sasrec", tmp_path) for data in ("old", "new"))
    assert [row | {"data": "new"} for row in old] == new
    assert [row["keys and values"] for row in old] == ["full", script.LOOKED_UP, script.FROZEN]
    assert old[2]["bytes/user + part of pools"] == str(25 * 16 + script.STATE)
    assert old[2]["minus full, HR@10"] == "+0.0000 (+0.0000 to +0.0000)"
