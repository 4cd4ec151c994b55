"""Comparisons with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from foretaste.errors import InputError
from foretaste.experiments.comparing import compare


def write_run(folder: Path, values: list[float], *, fingerprint: str = "same") -> Path:
    """As much of a run folder as a comparison reads."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text('[split]\nkind = "global-time"\n')
    record = {"model": "popularity", "status": "done", "data": {"fingerprint": fingerprint}}
    (folder / "run.json").write_text(json.dumps(record))
    users = [f"u{number}" for number in range(len(values))]
    frame = pl.DataFrame({"part": "test", "user_id": users, "history_length": 3, "ndcg@10": values})
    frame.write_parquet(folder / "metrics.parquet")
    return folder


def test_a_difference_that_every_user_sees_is_certain(tmp_path):
    weak = write_run(tmp_path / "weak", [0.1 * (n % 5) for n in range(200)])
    strong = write_run(tmp_path / "strong", [0.1 * (n % 5) + 0.05 for n in range(200)])
    found = compare([weak, strong])
    assert [row.run for row in found.rows] == ["strong", "weak"]
    (pair,) = found.pairs
    assert pair.difference == pytest.approx(0.05)
    assert pair.low == pytest.approx(0.05)
    assert pair.p_value < 0.001
    assert found.users == 200


def test_equal_runs_do_not_differ(tmp_path):
    runs = [write_run(tmp_path / name, [0.0, 1.0, 0.5]) for name in ("a", "b", "c")]
    found = compare(runs)
    assert len(found.pairs) == 3
    assert all(pair.difference == 0 and pair.p_holm == 1 for pair in found.pairs)


def test_runs_of_equal_name_are_told_apart_by_their_paths(tmp_path):
    runs = [write_run(tmp_path / place / "run", [0.0, 1.0]) for place in ("a", "b")]
    assert {row.run for row in compare(runs).rows} == {str(run) for run in runs}


def test_runs_on_other_data_are_refused(tmp_path):
    a = write_run(tmp_path / "a", [0.0, 1.0])
    b = write_run(tmp_path / "b", [0.0, 1.0], fingerprint="other")
    with pytest.raises(InputError, match="differ in their data"):
        compare([a, b])
