"""Every verb does what it says, in words and in JSON."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest

from .conftest import write_log

TINY = ("--set", "model.dim=16", "--set", "train.epochs=2", "--quiet")


def test_a_csv_is_all_that_train_needs(foretaste, log):
    done = foretaste("train", "--data", log, "--model", "sasrec", "--json", *TINY[:-1])
    assert done.code == 0, done.err
    assert done.json["run"] == "runs/log-sasrec"
    assert done.json["metrics"]["ndcg@10"]["value"] >= 0
    again = foretaste("train", "--data", log, "--model", "popularity", "--json")
    assert again.json["run"] == "runs/log-popularity"


def test_the_kind_of_file_can_be_said(foretaste, tmp_path):
    """It is the way out that messages name: here first words repeat, and are users all the same."""
    lines = ["a 1 2 3 4", "b 2 3 4 5", "c 3 4 5 1", "a 5"]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    more = ("--split", "leave-last-out", "--model", "popularity", "--run", "r", "--quiet")
    done = foretaste("train", "--data", "log.txt", "--format", "sequences", *more)
    assert done.code == 0, done.err
    told = foretaste("recommend", "r", "--user", "a", "--json").json
    assert (told["history"], told["unknown"]) == (list("1234"), ["5"])  # 5 is in no training row


def test_train_shows_the_columns_it_guessed(foretaste, log):
    done = foretaste("train", "--data", log, "--model", "popularity")
    assert done.code == 0, done.err
    assert "user=user_id (guessed)" in done.out
    assert "foretaste recommend runs/log-popularity" in done.out


def test_a_run_keeps_its_command_as_a_shell_takes_it(foretaste, log, tmp_path):
    log.rename(tmp_path / "my log.csv")
    more = ("--model", "popularity", "--run", "r", "--quiet")
    assert foretaste("train", "--data", "my log.csv", *more).code == 0
    command = json.loads((tmp_path / "r/run.json").read_text())["command"]
    assert command == f"foretaste train --data 'my log.csv' {' '.join(more)}"


def test_quiet_is_silent(foretaste, log):
    done = foretaste("train", "--data", log, "--model", "popularity", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_a_recipe_file_is_overruled_by_flags_and_settings(foretaste, log, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[data]\nsource = "{log}"\n[model]\nname = "sasrec"\ndim = 8\n')
    done = foretaste("train", recipe, "--run", "r", "--seed", 7, *TINY)
    assert done.code == 0, done.err
    written = (tmp_path / "r" / "recipe.toml").read_text()
    assert "dim = 16" in written
    assert "seed = 7" in written


def test_evaluate_gives_the_promised_object(foretaste, trained):
    done = foretaste("evaluate", trained, "--json")
    assert done.code == 0, done.err
    assert done.json["model"] == "sasrec"
    assert done.json["split"] == "global-time"
    assert done.json["users"] > 0
    figure = done.json["metrics"]["ndcg@10"]
    assert figure["low"] <= figure["value"] <= figure["high"]
    valid = foretaste("evaluate", trained, "--split", "valid", "--json").json
    assert valid["part"] == "valid"
    unmasked = foretaste("evaluate", trained, "--set", "evaluate.exclude=none", "--json").json
    assert unmasked["exclude"] == "none"


def test_evaluate_repeats_what_train_measured(foretaste, trained):
    written = json.loads((trained / "metrics.json").read_text())["test"]["metrics"]
    assert foretaste("evaluate", trained, "--json").json["metrics"] == written


def test_recommend_gives_the_promised_object(foretaste, trained):
    done = foretaste("recommend", trained, "--history", "i1; i2; nothing like it", "--json")
    assert done.code == 0, done.err
    assert set(done.json) >= {"items", "matched", "unknown"}
    assert set(done.json["items"][0]) == {"item_id", "title", "score"}
    assert [match["item_id"] for match in done.json["matched"]] == ["i1", "i2"]
    assert done.json["unknown"] == ["nothing like it"]
    assert not {"i1", "i2"} & {line["item_id"] for line in done.json["items"]}


def test_recommend_by_ids_by_user_and_for_nobody(foretaste, trained):
    by_ids = foretaste("recommend", trained, "--history-ids", "i3,i4,zzz", "-k", 3, "--json").json
    assert len(by_ids["items"]) == 3
    assert by_ids["unknown"] == ["zzz"]
    by_user = foretaste("recommend", trained, "--user", "u5", "--json").json
    assert by_user["history"]
    nobody = foretaste("recommend", trained, "--json").json
    assert nobody["history"] == []
    assert nobody["items"]
    chosen = foretaste("recommend", trained, "--candidates", "i1,i2", "--json").json
    assert {line["item_id"] for line in chosen["items"]} == {"i1", "i2"}
    twice = (
        "--history-ids",
        "i3",
        "--history-ids",
        "i4",
        "--candidates",
        "i1",
        "--candidates",
        "no",
    )
    several = foretaste("recommend", trained, *twice, "--json").json
    assert several["history"] == ["i3", "i4"]
    assert several["unknown"] == ["no"]
    assert [line["item_id"] for line in several["items"]] == ["i1"]
    assert "left out: no" in foretaste("recommend", trained, *twice).out
    typed = foretaste("recommend", trained, "--history", "i1; i1", "--history", "i2", "--json")
    assert typed.json["history"] == ["i1", "i1", "i2"]
    shown = foretaste("recommend", trained, "--history-ids", "i3", "--include-seen", "-k", 12)
    assert "i3" in shown.out


def test_compare_pairs_runs(foretaste, log):
    for model in ("popularity", "markov", "itemknn"):
        assert foretaste("train", "--data", log, "--model", model, "--quiet").code == 0
    runs = ["runs/log-popularity", "runs/log-markov", "runs/log-itemknn"]
    done = foretaste("compare", *runs, "--json")
    assert done.code == 0, done.err
    assert done.json["part"] == "test"  # "split" is how the log was cut, as evaluate says
    assert done.json["left_out"] == 0
    assert done.json["runs"][0]["run"] == "log-markov"  # the ring is its home
    assert len(done.json["pairs"]) == 3
    assert all(pair["p_holm"] >= pair["p_value"] for pair in done.json["pairs"])
    shown = foretaste("compare", *runs).out
    assert "p (Holm)" in shown
    assert "left out" not in shown


def test_compare_of_a_single_user(foretaste, tmp_path):
    (tmp_path / "one.csv").write_text(
        "user,item,time\n" + "".join(f"a,i{n},{n}\n" for n in range(9))
    )
    for model in ("popularity", "markov"):
        more = ("--model", model, "--run", model, "--quiet")
        assert foretaste("train", "--data", "one.csv", *more).code == 0
    shown = foretaste("compare", "popularity", "markov").out
    assert "nan" not in shown
    assert "the same 1 user\n" in shown


def test_compare_tells_whom_it_leaves_out(foretaste, trained, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(trained, tmp_path / name)
    figures = pl.read_parquet(tmp_path / "a/metrics.parquet")
    first = pl.int_range(pl.len()).over("part") == 0
    value = pl.when(~first).then(pl.col("ndcg@10")).otherwise(float("nan"))
    figures.with_columns(value.alias("ndcg@10")).write_parquet(tmp_path / "a/metrics.parquet")
    assert foretaste("compare", "a", "b", "--json").json["left_out"] == 1
    assert "1 user left out" in foretaste("compare", "a", "b").out


@pytest.mark.parametrize("model", ["popularity", "markov", "itemknn"])
def test_a_short_list_is_the_head_of_a_longer_one(foretaste, tmp_path, model):
    log = write_log(tmp_path / "wide.csv", users=40, items=300)  # most scores are tied
    assert foretaste("train", "--data", log, "--model", model, "--run", "run", "--quiet").code == 0
    for asked in ((), ("--history-ids", "i3,i4"), ("--history-ids", "i200")):
        lists = [
            foretaste("recommend", "run", *asked, "-k", k, "--json").json["items"]
            for k in (5, 10, 99)
        ]
        assert lists[0] == lists[1][:5] == lists[2][:5]
        assert lists[1] == lists[2][:10]


def test_tune_searches_and_goes_on(foretaste, log, tmp_path):
    recipe = tmp_path / "tune.toml"
    recipe.write_text(
        f'[data]\nsource = "{log}"\n[model]\nname = "itemknn"\n'
        '[tune]\ntrials = 2\n[tune.space]\n"model.shrink" = { low = 0.0, high = 10.0 }\n'
    )
    first = foretaste("tune", recipe, "--folder", "search", "--json")
    assert first.code == 0, first.err
    assert first.json["trials"] == 2
    second = foretaste("tune", recipe, "--folder", "search", "--trials", 4, "--json")
    assert second.json["trials"] == 4
    assert second.json["value"] >= first.json["value"]
    assert foretaste("train", second.json["recipe"], "--quiet").code == 0


def test_report_of_a_run(foretaste, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    done = foretaste("report", run, "--json")
    assert done.code == 0, done.err
    assert "<html" in (run / "report.html").read_text()


def test_resume_of_a_finished_run_says_so(foretaste, trained):
    assert "finished already" in foretaste("resume", trained).out


def test_datasets_and_doctor(foretaste):
    assert foretaste("datasets", "--json").json["embedded"][0]["name"] == "movietweetings"
    assert "MIT" in foretaste("datasets").out
    found = foretaste("doctor", "--json").json
    extras = found["extras"]
    assert set(extras) == {"als", "ann", "federated", "llm", "serve", "text", "tune"}
    assert extras["als"] and extras["ann"] and extras["serve"] and extras["tune"]
    assert found["machine"]["matmul_gflops"] > 0


@pytest.mark.slow
def test_the_demo_from_start_to_end(foretaste, tmp_path):
    done = foretaste("demo", "--set", "train.epochs=1", "--json")
    assert done.code == 0, done.err
    assert (tmp_path / "runs/demo/report.html").exists()
    assert {path.name for path in (tmp_path / "runs/demo").iterdir()} == {
        "popularity",
        "ease",
        "sasrec",
        "report.html",
    }
    titles = [match["title"] for match in done.json["recommended"]["matched"]]
    assert "Inception (2010)" in titles
    again = foretaste("demo", "--set", "train.epochs=1", "--json")
    assert again.json["runs"] == done.json["runs"]


def test_the_version_is_told_by_command_and_module(foretaste):
    import subprocess
    import sys

    from foretaste import __version__

    assert foretaste("--version").out == f"foretaste {__version__}\n"
    called = [sys.executable, "-m", "foretaste", "--version"]
    module = subprocess.run(called, capture_output=True, text=True, check=True)
    assert module.stdout == f"foretaste {__version__}\n"
