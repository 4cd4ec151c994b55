"""What the page says: the truth about what there is, and a sentence about what there is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import polars as pl
import pytest

from foretaste.errors import InputError
from foretaste.experiments.comparing import Comparison, Pair, Score
from foretaste.reporting import write_report
from foretaste.reporting.headline import headline
from foretaste.reporting.runs import read_runs

MakeRun = Callable[..., Path]


def _words(page: Path | str) -> str:
    text = page.read_text(encoding="utf-8") if isinstance(page, Path) else page
    text = re.sub(r"<(style|script)>.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


def _figure(run: Path) -> float:
    metrics = json.loads((run / "metrics.json").read_text())
    return metrics["test"]["metrics"]["ndcg@10"]["value"]


def test_shows_the_figures_of_the_runs(three_runs: list[Path], tmp_path: Path) -> None:
    words = _words(write_report(three_runs, tmp_path / "r.html"))
    for run in three_runs:
        assert f"{_figure(run):.4f}" in words
    assert "sasrec has the highest NDCG@10" in words or "sasrec is the best of 3 runs" in words
    assert "5f2c9a7be01d44c8" in words
    assert "foretaste train --data movietweetings --model ease" in words
    assert "learning_rate = 0.001" in words
    assert "No knowledge of the future was found" in words


@pytest.mark.parametrize(("p_holm", "said"), [(0.01, "more than chance"), (0.3, "within what ch")])
def test_headline_claims_only_what_the_test_allows(
    p_holm: float, said: str, three_runs: list[Path]
) -> None:
    runs = read_runs(three_runs[1:])
    rows = (Score("sasrec", "sasrec", 0.12, 0.11, 0.13), Score("ease", "ease", 0.1, 0.09, 0.11))
    pairs = (Pair("sasrec", "ease", 0.02, 0.001, 0.04, p_holm, p_holm, 900),)
    found = headline(runs, "test", "ndcg@10", Comparison("ndcg@10", "test", 900, rows, pairs), "ok")
    assert said in found.sentence
    assert ("best of 2 runs" in found.sentence) == (p_holm < 0.05)
    assert ("(20 % more)" in found.sentence) == (p_holm < 0.05)
    assert "seed" in found.details[-1]


def test_headline_says_that_popularity_wins(three_runs: list[Path]) -> None:
    runs = read_runs(three_runs[:2])
    rows = (Score("popularity", "popularity", 0.2, 0.1, 0.3), Score("ease", "ease", 0.1, 0, 0.2))
    pairs = (Pair("popularity", "ease", 0.1, 0.05, 0.15, 0.001, 0.001, 900),)
    found = headline(runs, "test", "ndcg@10", Comparison("ndcg@10", "test", 900, rows, pairs), "ok")
    assert "No other run does better than showing everybody what is popular." in found.details


def test_one_run(make_run: MakeRun, tmp_path: Path) -> None:
    words = _words(write_report([make_run("sasrec")], tmp_path / "r.html"))
    assert "sasrec reaches a NDCG@10 of" in words
    assert "One evaluated run says how good it is" in words
    assert "Differences need two evaluated runs" in words


def test_run_without_metrics_beside_others(make_run: MakeRun, tmp_path: Path) -> None:
    bare = make_run(
        "sasrec",
        without=("metrics.json", "metrics.parquet", "samples.json"),
        record={"status": "training", "fit": None},
    )
    words = _words(write_report([make_run("ease"), bare], tmp_path / "r.html"))
    assert "sasrec has no figures for the test part. Its run was cut off" in words
    assert "sasrec has not come to the end of its training" in words
    assert "ease reaches a NDCG@10" in words


def test_no_run_has_metrics(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("ease", without=("metrics.json", "metrics.parquet", "samples.json"))
    words = _words(write_report([run], tmp_path / "r.html"))
    assert "No run of this report has been evaluated yet" in words
    assert "The runs wrote no lists down" in words
    assert "Coverage and popularity of the lists were not measured" in words


def test_only_validation(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("ease"), make_run("sasrec")]
    for run in runs:
        metrics = json.loads((run / "metrics.json").read_text())
        (run / "metrics.json").write_text(json.dumps({"valid": metrics["valid"]}))
    words = _words(write_report(runs, tmp_path / "r.html"))
    assert "NDCG@10 on the valid part" in words and "expect a little less" in words


def test_no_validation_no_clock_no_categories(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("sasrec")
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    del metrics["metrics"]["ild@10"], metrics["slices"]
    (run / "metrics.json").write_text(json.dumps({"test": metrics}))
    record = json.loads((run / "run.json").read_text())
    record["data"] |= {"first_time_ms": None, "last_time_ms": None, "events_by_period": []}
    record["split"] |= {"cuts_ms": None, "kind": "leave-last-out"}
    record["fit"] |= {"best_epoch": None, "metric": None}
    for epoch in record["fit"]["epochs"]:
        epoch["valid"] = None
    (run / "run.json").write_text(json.dumps(record))
    words = _words(write_report([run], tmp_path / "r.html"))
    assert "No validation was made during training" in words
    assert "the log has no clock" in words
    assert "Groups of users were not measured" in words
    assert "Diversity" not in words
    assert "Other users' later behaviour is in training" in words


def test_metrics_per_user_are_gone(three_runs: list[Path], tmp_path: Path) -> None:
    (three_runs[1] / "metrics.parquet").unlink()
    words = _words(write_report(three_runs, tmp_path / "r.html"))
    assert "Differences could not be tested" in words
    assert "whether its lead is more than chance could not be tested" in words


def test_items_without_titles(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("ease")
    lists = json.loads((run / "samples.json").read_text())
    for one in lists:
        for line in one["recommended"]:
            line["title"] = line["item_id"]
    (run / "samples.json").write_text(json.dumps(lists))
    assert "items are shown by their ids" in _words(write_report([run], tmp_path / "r.html"))


def test_nearly_empty_record(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("ease", without=("metrics.json", "metrics.parquet", "samples.json"))
    (run / "run.json").write_text(json.dumps({"model": "ease", "data": {"fingerprint": "f"}}))
    words = _words(write_report([run], tmp_path / "r.html"))
    assert "No leakage check was recorded" in words


def test_leaks_are_said_at_the_top(make_run: MakeRun, tmp_path: Path) -> None:
    finding = {"name": "vocabulary", "severity": "leak", "count": 3, "message": "3 items are new"}
    leaky = make_run("ease", record={"leakage": {"checks": ["vocabulary"], "findings": [finding]}})
    words = _words(write_report([make_run("sasrec"), leaky], tmp_path / "r.html"))
    assert words.index("Leakage was found") < words.index("NDCG@10 on the test part")
    assert "ease. Knowledge of the future reaches the model" in words
    assert "leak: vocabulary . 3 items are new" in words


def test_hits_are_marked(three_runs: list[Path], tmp_path: Path) -> None:
    page = write_report(three_runs, tmp_path / "r.html").read_text(encoding="utf-8")
    hits = sum(
        line["hit"]
        for run in three_runs
        for one in json.loads((run / "samples.json").read_text())
        for line in one["recommended"]
    )
    assert hits and page.count('<li class="hit">') == hits


@pytest.mark.parametrize("what", ["fingerprint", "split"])
def test_other_data_or_split_is_refused(what: str, make_run: MakeRun, tmp_path: Path) -> None:
    one, other = make_run("ease"), make_run("sasrec")
    if what == "fingerprint":
        record = json.loads((other / "run.json").read_text())
        record["data"]["fingerprint"] = "another"
        (other / "run.json").write_text(json.dumps(record))
    else:
        recipe = (other / "recipe.toml").read_text().replace("global-time", "leave-last-out")
        (other / "recipe.toml").write_text(recipe)
    with pytest.raises(InputError) as error:
        write_report([one, other], tmp_path / "r.html")
    assert str(one) in str(error.value) and str(other) in str(error.value)
    assert not (tmp_path / "r.html").exists()


def test_refuses_no_runs_the_same_twice_and_other_folders(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("ease")
    for runs, said in [([], "needs a run"), ([run, run], "twice"), ([tmp_path], "not a run")]:
        with pytest.raises(InputError, match=said):
            write_report(runs, tmp_path / "r.html")


def test_equal_names_are_told_apart_by_their_paths(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("ease", name="a/run"), make_run("sasrec", name="b/run")]
    words = _words(write_report(runs, tmp_path / "r.html"))
    assert f"{runs[0]} (ease)" in words and f"{runs[1]} (sasrec)" in words


def test_file_appears_whole_or_not_at_all(
    three_runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "new" / "report.html"
    assert write_report(three_runs, output) == output
    before = output.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match="No space"):
        write_report(three_runs[:1], output)
    assert output.read_bytes() == before
    assert [path.name for path in output.parent.iterdir()] == ["report.html"]


def test_a_folder_is_no_output(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        write_report([make_run("ease")], tmp_path)


def test_timeline_is_coloured_by_the_cuts(three_runs: list[Path], tmp_path: Path) -> None:
    page = write_report(three_runs, tmp_path / "r.html").read_text(encoding="utf-8")
    parts = re.findall(r'<rect class="column (\w+)"[^>]*><title>', page)
    periods = json.loads((three_runs[0] / "run.json").read_text())["data"]["events_by_period"]
    assert len(parts) == len(periods)
    assert parts == sorted(parts, key=["train", "valid", "test"].index)
    assert abs(parts.count("train") - 137 * len(periods) / 183) < 2


def test_a_federation_shows_figures_of_others_than_validation(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """Of clients alone there is a line too; of users who never train a figure."""
    still = {"users": 4, "down": 2_000.0, "up": 3_000.0, "problems": {}}
    by_clients = [
        still | {"round": round, "figures": {}, "on_clients": {"ndcg@10": value, "hr@10": 0.9}}
        for round, value in ((1, 0.25), (2, 0.375))
    ]
    about = {"method": "fedavg", "metric": "ndcg@10", "best_round": 2, "rounds": by_clients}
    page = write_report([make_run("sasrec", record={"federation": about})], tmp_path / "r.html")
    assert "NDCG@10 by round. The ring is the round that was kept." in page.read_text()
    assert "of the round that was kept: clients' own newest events 0.3750" in _words(page)
    figures = {"valid": 0.5, "held_out": 0.125}
    about["rounds"] = [still | {"round": 2, "figures": figures, "on_clients": {}}]
    run = make_run("sasrec", name="out", record={"federation": about})
    words = _words(write_report([run], tmp_path / "r.html"))
    assert "the round that was kept: validation 0.5000, users who never train 0.1250" in words


def test_a_federation_tells_what_became_of_views(make_run: MakeRun, tmp_path: Path) -> None:
    one = {"round": 1, "users": 4, "down": 2_000.0, "up": 3_000.0, "problems": {}, "figures": {}}
    views = {"made": 1_200, "asked": 90, "unmatched": 7, "refused": 0, "without_views": 2}
    about = {"method": "lumos", "rounds": [one], "views": views}
    run = make_run("sasrec", record={"federation": about})
    told = "Views: 1,200 histories were given some, 90 titles came from the language model, 7 of"
    words = _words(write_report([run], tmp_path / "r.html"))
    assert told in words and "2 times a user trained without" in words
    assert "a prompt refused" not in words


def test_a_federation_tells_bytes_of_training_and_of_evaluation(
    make_run: MakeRun, tmp_path: Path
) -> None:
    first = {"round": 1, "users": 4, "down": 2_000.0, "up": 3_000.0, "problems": {}, "figures": {}}
    rounds = [first, first | {"round": 2, "evaluation_down": 7_000.0, "evaluation_up": 400.0}]
    run = make_run("sasrec", record={"federation": {"method": "fedavg", "rounds": rounds}})
    words = _words(write_report([run], tmp_path / "r.html"))
    assert "2 kB 7 kB for evaluation 3 kB 400 B for evaluation" in words


def test_a_single_user_has_no_interval(three_runs, tmp_path):
    for run in three_runs:
        figures = pl.read_parquet(run / "metrics.parquet")
        figures.filter(pl.col("user_id") == "1000").write_parquet(run / "metrics.parquet")
    page = write_report(three_runs, tmp_path / "report.html")
    assert "nan" not in re.findall(r"[a-z]+", page.read_text().lower())
    words = _words(page)
    assert "is of a single user, who shows no spread" in words
    assert "on the same 1 user." in words
