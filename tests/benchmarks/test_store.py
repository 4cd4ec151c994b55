"""The benchmark of the stores: what it writes are records of a model, and they come back."""

from __future__ import annotations

import importlib
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_records_of_a_model_are_written_and_read_back(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    store = importlib.import_module("store")
    url = f"lmdb:{tmp_path / 'store'}"
    rows = {kept: store.measure(url, kept, 50, 10**9) for kept in [store.LOG, *store.CACHES]}
    # Numbers of an event's own, pool entries, the item's number; the first layer is looked up.
    widths = {"full fp32 cache": 2_052, "CollectiveKV": 16, "CollectiveKV, pools alone": 4}
    assert {kept: row["bytes/event"] for kept, row in rows.items()} == {store.LOG: 12} | widths
    assert {row["users"] for row in rows.values()} == {"50"}
    items = store.records_of("CollectiveKV")[:, -2:].copy().view("<u2")
    assert items.max() < store.ITEMS and len(set(items[:, 0])) > 1_000
