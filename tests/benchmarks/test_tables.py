"""Tables that benchmarks write are read back, so that rows of other data stay as they are."""

from __future__ import annotations

import importlib
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_a_table_is_read_as_it_was_written(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    driving = importlib.import_module("peers.driving")
    path = tmp_path / "table.md"
    assert driving.read_table(path) == []
    driving.write_table(path, [{"a": "one", "b": 0.25, "c": ""}, {"a": "", "b": 2, "c": "x"}], "On")
    first = path.read_text()
    rows = driving.read_table(path)
    assert rows == [{"a": "one", "b": "0.2500", "c": ""}, {"a": "", "b": "2", "c": "x"}]
    driving.write_table(path, rows, "On")
    assert path.read_text() == first
