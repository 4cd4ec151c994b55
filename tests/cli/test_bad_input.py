"""Whatever a user gives, a call ends in one clear line and exit code 2, nothing half-written."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
from pathlib import Path

import pytest

GOOD = "user,item,time\na,x,1\na,y,2\nb,x,3\nb,z,4\nc,y,5\nc,z,6\n"

# What is in the file, and what the line must say.
FILES = {
    "empty": ("", "empty"),
    "header only": ("user,item,time\n", "no rows"),
    "missing column": ("a,b\nfoo,bar\n", "column"),
    "ids missing": ("user,item,time\na,x,1\n,y,2\nb,,3\n", "no user id"),
    "NaN ids": ("user,item,time\na,x,1\nNaN,y,2\n", "no user id"),
    "times that are no times": ("user,item,time\na,x,1\na,y,yesterday\n", "yesterday"),
    "one interaction": ("user,item,time\na,x,1\n", "interactions: 1"),
    "one item": ("user,item,time\na,x,1\nb,x,1\nc,x,1\n", "too few distinct times"),
    "duplicate headers": ("user,user,item,time\na,b,x,1\n", "user"),
    "ragged rows": ("user,item,time\na,x,1,9,9\n", "row"),
}


def one_line(ended) -> str:
    """The only line on stderr of a call that blames the user's input."""
    assert ended.code == 2, ended.err or ended.out
    assert ended.out == ""
    assert ended.err.count("\n") == 1, ended.err
    assert ended.err.startswith("foretaste: ")
    assert "Traceback" not in ended.err
    return ended.err


@pytest.mark.parametrize("case", FILES)
def test_files(foretaste, tmp_path, case):
    content, says = FILES[case]
    path = tmp_path / "log.csv"
    path.write_text(content)
    line = one_line(foretaste("train", "--data", path, "--model", "popularity", "--quiet"))
    assert "log.csv" in line
    assert says in line
    assert not (tmp_path / "runs").exists()


def test_no_such_file(foretaste, tmp_path):
    assert "nowhere.csv" in one_line(foretaste("train", "--data", "nowhere.csv", "--quiet"))
    assert not (tmp_path / "runs").exists()


def test_wrong_encoding(foretaste, tmp_path):
    (tmp_path / "log.csv").write_bytes(GOOD.encode("utf-16-le"))
    assert "log.csv" in one_line(foretaste("train", "--data", "log.csv", "--quiet"))


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such names")
def test_names_that_are_not_utf8(foretaste, tmp_path, log):
    """As of files from an old disk; Python holds their odd bytes as surrogates."""
    odd = os.fsdecode(b"caf\xe9")
    (tmp_path / odd).mkdir()
    shutil.copy(log, tmp_path / odd / "log.csv")
    (tmp_path / "folder").mkdir()
    shutil.copy(log, tmp_path / "folder" / f"{odd}.csv")
    for data in (Path(odd) / "log.csv", odd, "folder"):
        line = one_line(foretaste("train", "--data", data, "--model", "popularity", "--quiet"))
        assert "the name is not UTF-8. Rename it." in line
    more = ("--model", "popularity", "--quiet", "--run", f"{odd}/run")
    assert "not UTF-8" in one_line(foretaste("train", "--data", log, *more))
    assert not (tmp_path / odd / "run").exists()


def test_gzip_cut_short(foretaste, tmp_path):
    whole = gzip.compress(GOOD.encode() * 200)
    (tmp_path / "log.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "log.csv.gz" in one_line(foretaste("train", "--data", "log.csv.gz", "--quiet"))


def test_a_field_of_a_million_characters_is_only_long(foretaste, tmp_path):
    rows = "".join(f"u{n % 9},i{n % 7},{n}\n" for n in range(200))
    (tmp_path / "log.csv").write_text(f"user,item,time\n{'u' * 1_000_000},x,1\n" + rows)
    done = foretaste("train", "--data", "log.csv", "--model", "popularity", "--quiet")
    assert done.code == 0, done.err


def test_one_user_has_nothing_to_compare_but_does_not_break(foretaste, tmp_path):
    rows = "".join(f"a,i{n},{n}\n" for n in range(9))
    (tmp_path / "log.csv").write_text("user,item,time\n" + rows)
    done = foretaste("train", "--data", "log.csv", "--model", "popularity", "--quiet")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--model", "sasrek"), '"sasrec"'),
        (("--set", "train.epoch=3"), '"epochs"'),
        (("--set", "modle.dim=3"), '"model"'),
        (("--set", "train.epochs=many"), "epochs"),
        (("--set", "train.epochs"), "section.field=value"),
        (("--set", "model.dropout=1.5"), "1.5"),
        (("--set", "evaluate.metrics=['ndgc@10']"), "ndcg@10"),
        (("--split", "random"), "global-time"),
        (("--model", "ease", "--set", "train.epochs=3"), "no effect"),
        (("--user-col", "usr"), "user_id"),
    ],
)
def test_misspelt_options(foretaste, log, tmp_path, arguments, says):
    assert says in one_line(foretaste("train", "--data", log, "--quiet", *arguments))
    assert not (tmp_path / "runs").exists()


def test_a_recipe_with_a_misspelt_key(foretaste, tmp_path):
    (tmp_path / "recipe.toml").write_text("[train]\nlearning_rat = 0.1\n")
    line = one_line(foretaste("train", "recipe.toml"))
    assert "recipe.toml" in line
    assert '"learning_rate"' in line


def test_a_recipe_with_a_byte_order_mark_is_read(foretaste, tmp_path):
    (tmp_path / "recipe.toml").write_text("[train]\nlearning_rat = 0.1\n", encoding="utf-8-sig")
    assert '"learning_rate"' in one_line(foretaste("train", "recipe.toml"))


def test_a_recipe_that_is_no_toml(foretaste, tmp_path):
    (tmp_path / "recipe.toml").write_text("[train\n")
    assert "not TOML" in one_line(foretaste("train", "recipe.toml"))
    assert "cannot read" in one_line(foretaste("train", "missing.toml"))


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of a finished run that a test may damage."""
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    return copy


def test_no_run_folder(foretaste, tmp_path):
    for verb in ("evaluate", "recommend", "resume", "report"):
        assert "not a run folder" in one_line(foretaste(verb, tmp_path / "nowhere"))


def test_missing_weights(foretaste, run):
    (run / "weights.safetensors").unlink()
    assert "weights.safetensors" in one_line(foretaste("recommend", run))


def test_truncated_weights(foretaste, run):
    weights = run / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000])
    assert "damaged" in one_line(foretaste("recommend", run))
    weights.write_bytes(b"")
    assert "damaged" in one_line(foretaste("evaluate", run))


def test_a_run_that_names_no_data(foretaste, run):
    (run / "run.json").write_text('{"status": "training"}')
    for verb in (("evaluate", run), ("recommend", run, "--user", "u1"), ("resume", run)):
        assert "run.json: names no data" in one_line(foretaste(*verb))


def test_weights_of_another_model(foretaste, run):
    from foretaste.storage import read_arrays, write_arrays

    weights = run / "weights.safetensors"
    kept = {"popularity": read_arrays(weights)["popularity"]}
    write_arrays(weights, kept)
    assert "not the weights" in one_line(foretaste("recommend", run))


def test_a_pickle_is_not_opened(foretaste, run):
    weights = run / "weights.safetensors"
    weights.write_bytes(b"\x80\x04\x95cposix\nsystem\n")
    assert "damaged" in one_line(foretaste("recommend", run))


def test_a_damaged_catalog_or_description(foretaste, run):
    (run / "catalog.parquet").write_bytes(b"PAR1")
    assert "catalog" in one_line(foretaste("recommend", run))
    (run / "model.json").write_text("{")
    assert "model.json" in one_line(foretaste("recommend", run))


def test_data_that_changed_after_training(foretaste, run, tmp_path):
    source = tmp_path / "log.csv"
    source.write_text(GOOD)
    recipe = run / "recipe.toml"
    lines = [
        f'source = "{source}"' if line.startswith("source") else line
        for line in recipe.read_text().splitlines()
    ]
    recipe.write_text("\n".join(lines))
    assert "has changed" in one_line(foretaste("evaluate", run))


def test_questions_that_make_no_sense(foretaste, trained):
    for arguments in (
        ("--history", "i1", "--user", "u1"),
        ("--user", "nobody"),
        ("-k", 0),
        ("--candidates", "zzz"),
    ):
        one_line(foretaste("recommend", trained, *arguments))
    assert "test or valid" in one_line(foretaste("evaluate", trained, "--split", "leave-last-out"))


def test_runs_that_cannot_be_compared(foretaste, trained, log):
    assert foretaste("train", "--data", log, "--model", "ease", "--run", "a", "--quiet").code == 0
    split = ("--split", "leave-last-out", "--run", "b", "--quiet")
    assert foretaste("train", "--data", log, "--model", "ease", *split).code == 0
    assert "differ in their split" in one_line(foretaste("compare", "a", "b"))
    assert "two runs" in one_line(foretaste("compare", "a"))
    assert "named twice" in one_line(foretaste("compare", "a", "a"))
    shutil.copytree("a", "c")
    assert "measured" in one_line(foretaste("compare", "a", "c", "--metric", "ndcg@99"))


def test_a_run_is_never_written_over(foretaste, log, trained):
    line = one_line(foretaste("train", "--data", log, "--run", trained, "--quiet"))
    assert "foretaste resume" in line


def test_a_run_folder_that_cannot_be_made(foretaste, log, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ("--data", log, "--model", "popularity", "--run", "file/run", "--quiet")
    assert "file" in one_line(foretaste("train", *arguments))


def test_a_log_without_a_next_item_leaves_no_run_behind(foretaste, tmp_path):
    rows = "".join(f"u{n},i{n % 3},{n}\n" for n in range(40))
    (tmp_path / "log.csv").write_text("user,item,time\n" + rows)
    line = one_line(foretaste("train", "--data", "log.csv", "--model", "sasrec", "--quiet"))
    assert "no next item" in line
    assert not list((tmp_path / "runs").glob("*"))
