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
    rows_of_log = [
        (f"u{user}", f"i{item}", 60 * place)
        for user in range(40)
        for place, item in enumerate(rng.choice(300, 30, replace=False).tolist())
    ]
    names = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows_of_log, names, orient="row").write_parquet(tmp_path / "tiny.parquet")
    asked = ["full", "both", "one pool", "one pool, all layers"]
    asked += [f"{one}, as it begins" for one in ("full", "both", script.LOW_RANK)]
    numbers = [str(number) for number, arm in enumerate(script.ARMS) if arm.name in asked]
    options = ["--data", str(tmp_path / "tiny.parquet"), "--models", "sasrec", "--arms", *numbers]
    options += ["--seeds", "0", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(
        sys, "argv", ["collectivekv.py", *options, "--out", str(tmp_path / "table.md")]
    )
    script.main()
    table = importlib.import_module("peers.driving").read_table(tmp_path / "table.md")
    rows = {row["keys and values"]: row for row in table}
    assert list(rows) == [asked[0], script.LOOKED_UP, *asked[1:]]
    found = {name: (row["bytes/event"], row["of full fp32"]) for name, row in rows.items()}
    assert found["full"] == ("2052", "100.20%")
    assert found[script.LOOKED_UP] == ("1028", "50.20%")
    assert found["both"] == found["one pool"] == ("16", "0.78%")
    assert rows["both"]["of full, first layer looked up"] == "1.56%"
    held, shared = rows["both"]["bytes/user + part of what is shared"].split(" + ")
    items = len({item for _, item, time in rows_of_log if time < 60 * 28})  # two are asked for
    pools, table = 4 * 2 * 5 * 256 * 126, 4 * 2 * 128 * items
    assert int(shared) == round((pools + table) / 40)
    paper = rows["one pool, all layers"]["pools + table of the first layer, KB"]
    assert paper == f"{4 * 2 * 2 * 256 * 122 / 1000:.0f} + {14 * items / 1000:.0f}"
    # Of 30 events the last is asked for; the store has something besides the records.
    assert 29 * 16 < int(held) < 29 * 16 + 200
    assert rows["both"]["minus full, HR@10"] and not rows["full"]["minus full, HR@10"]
