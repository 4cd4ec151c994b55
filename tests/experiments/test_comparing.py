"""Comparisons with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from foretaste.errors import InputError
from foretaste.experiments.comparing import compare


def write_run(
    folder: Path, values: list[float], *, fingerprint: str = "same", metric: str = "ndcg@10"
) -> Path:
    """As much of a run folder as a comparison reads."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text('[split]\nkind = "global-time"\n')
    record = {"model": "popularity", "status": "done", "data": {"fingerprint": fingerprint}}
    (folder / "run.json").write_text(json.dumps(record))
    users = [f"u{number}" for number in range(len(values))]
    frame = pl.DataFrame({"part": "test", "user_id": users, "history_length": 3, metric: values})
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


def test_users_without_a_value_are_left_out_and_counted(tmp_path):
    nan = float("nan")
    a = write_run(tmp_path / "a", [0.1, nan, 0.3, 0.4, nan], metric="ild@10")
    b = write_run(tmp_path / "b", [0.2, 0.2, nan, 0.5, nan], metric="ild@10")
    found = compare([a, b], metric="ild@10")
    assert (found.users, found.left_out) == (2, 3)
    assert found.pairs[0].users == 2
    assert found.pairs[0].difference == pytest.approx(0.1)
    empty = write_run(tmp_path / "empty", [nan] * 5, metric="ild@10")
    with pytest.raises(InputError, match=r"no user of the test part has a ild@10 in every run"):
        compare([a, empty], metric="ild@10")


def test_a_part_without_figures_is_told(tmp_path):
    runs = [write_run(tmp_path / name, [0.0, 1.0]) for name in ("a", "b")]
    with pytest.raises(InputError, match=r"a: has no figures of the valid part"):
        compare(runs, part="valid")


def test_a_run_is_named_once(tmp_path):
    a, b = (write_run(tmp_path / name, [0.0, 1.0]) for name in ("a", "b"))
    for runs in ([a, a], [a, b, a], [a, tmp_path / "b" / ".." / "a"]):
        with pytest.raises(InputError, match="named twice"):
            compare(runs)


def test_folders_may_be_called_like_columns(tmp_path):
    runs = [write_run(tmp_path / name, [0.0, 1.0]) for name in ("user_id", "ndcg@10", "0", "1")]
    assert {row.run for row in compare(runs).rows} == {"user_id", "ndcg@10", "0", "1"}


def test_what_is_no_metric_is_not_compared(tmp_path):
    runs = [write_run(tmp_path / name, [0.0, 1.0]) for name in ("a", "b")]
    for metric in ("user_id", "history_length", "hr@10"):
        with pytest.raises(InputError, match=f'has not measured "{metric}"'):
            compare(runs, metric=metric)


def test_folders_that_lack_what_a_run_says_are_told(tmp_path):
    a, b, c = (write_run(tmp_path / name, [0.0, 1.0]) for name in ("a", "b", "c"))
    (b / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"b/run.json: names no data"):
        compare([a, b])
    (b / "run.json").write_text('{"data": 3}')
    with pytest.raises(InputError, match=r"b/run.json: names no data"):
        compare([b, a])
    (c / "recipe.toml").write_text("evaluate = 3\n")
    with pytest.raises(InputError, match=r"c/recipe.toml: has no \[split\]"):
        compare([a, c])
